// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/window.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/base/time.h"
#include "halcyon/obs/quality_control.h"

namespace halcyon::assimilation {
namespace {

constexpr auto kNotNearest = static_cast<int32_t>(obs::Reason::not_nearest);
constexpr auto kWithheld = static_cast<int32_t>(obs::Reason::blocked_station);
constexpr auto kGross = static_cast<int32_t>(obs::Reason::gross_departure);

struct Report {
  const char* station;
  int64_t minutes;  // after midnight
  int32_t reason = 0;
  double lat = 40, lon = -100;
};

struct Case {
  explicit Case(const std::vector<Report>& reports) {
    std::vector<int64_t> time;
    std::vector<double> lat, lon;
    std::vector<std::string> station;
    for (const auto& r : reports) {
      seconds.push_back(parse_time("2014-11-10") + 60 * r.minutes);
      time.push_back(seconds.back() * 1'000'000'000);
      lat.push_back(r.lat);
      lon.push_back(r.lon);
      station.emplace_back(r.station);
      reason.push_back(r.reason);
    }
    table = obs::make_table(at::tensor(time, at::kLong), at::tensor(lat, at::kDouble),
                            at::tensor(lon, at::kDouble), at::full({table_rows()}, 280.f), 0);
    table.set_text("station", station);
  }
  int64_t table_rows() const { return static_cast<int64_t>(seconds.size()); }
  Window at(int64_t minutes, SeveralReports several = SeveralReports::nearest,
            std::vector<int64_t> ages = {0, 21600}) const {
    return window_of(table, seconds, reason, parse_time("2014-11-10") + 60 * minutes,
                     {std::move(ages), 1800, several});
  }
  obs::Table table;
  std::vector<int64_t> seconds;
  std::vector<int32_t> reason;
};

TEST(Window, TakesTheReportNearestToEachAge) {
  const Case reports({{"a", -10}, {"a", 2}, {"b", 20}, {"a", 40}, {"a", 355}, {"a", 369}});
  const auto first = reports.at(0);
  EXPECT_EQ(first.row, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(first.reason, (std::vector<int32_t>{kNotNearest, 0, 0}));
  // six hours later they have the other age; the newer ones compete for theirs
  const auto second = reports.at(360);
  EXPECT_EQ(second.row, (std::vector<int64_t>{0, 1, 2, 4, 5}));
  EXPECT_EQ(second.reason, (std::vector<int32_t>{kNotNearest, 0, 0, 0, kNotNearest}));
  EXPECT_TRUE(reports.at(120).row.empty());
}

TEST(Window, TiesGoToTheEarlierThenToTheFirst) {
  EXPECT_EQ(Case({{"a", 5}, {"a", -5}}).at(0).reason, (std::vector<int32_t>{kNotNearest, 0}));
  EXPECT_EQ(Case({{"a", 5}, {"a", 5}}).at(0).reason, (std::vector<int32_t>{0, kNotNearest}));
}

TEST(Window, OnlyWhatIsUsedCompetes) {
  EXPECT_EQ(Case({{"a", 0, kGross}, {"a", 9}}).at(0).reason, (std::vector<int32_t>{kGross, 0}));
  // withheld reports verify the analysis, once each station
  EXPECT_EQ(Case({{"a", 3, kWithheld}, {"a", -9, kWithheld}, {"b", 0}}).at(0).reason,
            (std::vector<int32_t>{kWithheld, kNotNearest, 0}));
}

TEST(Window, AStationWithoutANameIsItsPlace) {
  const Case reports({{"", 1, 0, 40, -100},
                      {"", 2, 0, 40.004, 260.003},
                      {"", 3, 0, 40.5, -100},
                      {"b", 4, 0, 40, -100}});
  // what stands at the place of another's name is that one's
  EXPECT_EQ(reports.at(0).reason, (std::vector<int32_t>{0, kNotNearest, 0, kNotNearest}));
}

TEST(Window, InflatedErrorsTogetherWeighAsOne) {
  const auto window =
      Case({{"a", -10}, {"a", 0}, {"b", 5}, {"a", 10}, {"a", 15}}).at(0, SeveralReports::inflate);
  EXPECT_EQ(window.reason, std::vector<int32_t>(5, 0));
  EXPECT_EQ(window.inflation, (std::vector<double>{2, 2, 1, 2, 2}));
}

TEST(Window, WideTolerancesKeepAReportAtItsNearestAge) {
  const Case reports({{"a", -181}, {"a", -179}});
  const auto window = window_of(reports.table, reports.seconds, reports.reason,
                                parse_time("2014-11-10"), {{0, 21600}, 4 * 3600});
  EXPECT_EQ(window.row, (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(window.reason, (std::vector<int32_t>{0, 0}));
}

}  // namespace
}  // namespace halcyon::assimilation
