// SPDX-License-Identifier: Apache-2.0
// Single observations that nobody should use: each gets its reason and is counted.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "halcyon/base/files.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/observation_file.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/variables.h"
#include "halcyon/state/read_fields.h"
#include "tests/apps/small_runs.h"

namespace halcyon {
namespace {

using testing::HasSubstr;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

struct Row {
  std::string station, time;  // an empty time is missing
  double lat, lon, value;
  std::string reason;  // what must become of it
  std::string platform = "land_station";
};

const std::vector<Row>& rows() {
  static const std::vector<Row> list = {
      {"good", "2014-02-01T00", 40, 255, 281, "used"},
      {"west", "2014-02-01T00", 42, -105, 281, "used"},
      {"nan", "2014-02-01T00", 40, 256, kNone, "not_finite"},
      {"inf", "2014-02-01T00", 40, 256, INFINITY, "not_finite"},
      {"hot", "2014-02-01T00", 40, 257, 500, "outside_valid_range"},
      {"cold", "2014-02-01T00", 40, 258, -20, "outside_valid_range"},
      {"gross", "2014-02-01T00", 40, 259, 322, "gross_departure"},
      {"lat", "2014-02-01T00", 95, 255, 281, "position"},
      {"nowhere", "2014-02-01T00", kNone, kNone, 281, "position"},
      {"lon", "2014-02-01T00", 40, 1e9, 281, "position"},
      {"south", "2014-02-01T00", -30, 255, 281, "outside_region"},
      {"europe", "2014-02-01T00", 48, 11, 281, "outside_region"},
      {"good", "2014-02-01T00", 40, 255, 282, "duplicate"},
      {"timeless", "", 40, 255, 281, "time"},
      {"early", "2014-01-20T00", 40, 255, 281, "outside_window"},
      {"late", "2014-02-01T03", 40, 255, 281, "outside_window"},
      {"never", "1690-01-01T00", 40, 255, 281, "outside_window"},
  };
  return list;
}

void write_rows(const std::filesystem::path& path, const std::vector<Row>& list) {
  std::vector<int64_t> time;
  std::vector<double> lat, lon;
  std::vector<float> value;
  std::vector<int32_t> platform;
  std::vector<std::string> station;
  for (const auto& row : list) {
    time.push_back(row.time.empty() ? obs::kMissingTimeNs : parse_time(row.time) * 1'000'000'000);
    lat.push_back(row.lat);
    lon.push_back(row.lon);
    value.push_back(static_cast<float>(row.value));
    platform.push_back(obs::platform_number(row.platform));
    station.push_back(row.station);
  }
  auto table = obs::make_table(at::tensor(time, at::kLong), at::tensor(lat, at::kDouble),
                               at::tensor(lon, at::kDouble), at::tensor(value, at::kFloat),
                               obs::variable_number("t2m"));
  table.set("platform", at::tensor(platform, at::kInt));
  table.set_text("station", station);
  obs::write_observations(path, table);
}

class BadObservationsCli : public testing::Test {
 protected:
  static const test::SmallRuns& runs() {
    static const test::SmallRuns small;
    return small;
  }
  static test::Result analyze(const std::string& file, const std::string& output) {
    return runs().run("analyze", "--set times.end=2014-02-01T00 --set observations.files={}/" +
                                     file + " --set output={}/" + output);
  }
  static nlohmann::json record(const std::string& output) {
    return nlohmann::json::parse(read_text(runs().file(output) / "run.json"));
  }
};

TEST_F(BadObservationsCli, EachGetsItsReasonAndIsCounted) {
  write_rows(runs().file("rows.nc"), rows());
  const auto result = analyze("rows.nc", "rows");
  ASSERT_EQ(result.code, 0) << result.output;
  std::map<std::string, int> all, in_window;
  std::vector<std::string> stations;
  for (const auto& row : rows()) {
    ++all[row.reason];
    if (row.reason == "outside_window" || row.reason == "time") continue;
    ++in_window[row.reason];
    stations.push_back(row.station);
  }
  const auto written = record("rows");
  EXPECT_EQ(written["reports"].get<decltype(all)>(), all);
  EXPECT_EQ(written["feedback"]["by_reason"].get<decltype(all)>(), in_window);

  const NetcdfReader file(runs().file("rows") / "feedback.nc");
  EXPECT_EQ(file.read_strings("station"), stations);
  const auto codes = file.read("reason");
  const auto names = obs::qc_reasons();
  int64_t at = 0;
  for (const auto& row : rows()) {
    if (row.reason == "outside_window" || row.reason == "time") continue;
    const auto code = static_cast<std::size_t>(codes[at++].item<int64_t>());
    EXPECT_EQ(code == 0 ? "used" : names[code], row.reason) << row.station;
  }
  // missing values are marked, not NaN in disguise of a number
  EXPECT_TRUE(std::isnan(file.read_physical("air", at::kDouble)[2].item<double>()));
  EXPECT_TRUE(std::isinf(file.read_physical("air", at::kDouble)[3].item<double>()));
}

TEST_F(BadObservationsCli, TheAnalysisIsThatOfTheGoodOnesAlone) {
  write_rows(runs().file("rows.nc"), rows());
  auto good = rows();
  std::erase_if(good, [](const Row& row) { return row.reason != "used"; });
  write_rows(runs().file("good.nc"), good);
  ASSERT_EQ(analyze("rows.nc", "with_bad").code, 0);
  ASSERT_EQ(analyze("good.nc", "without").code, 0);
  const auto read = [](const char* folder) {
    return state::read_fields(runs().file(folder) / "analysis_latlon.nc").data;
  };
  EXPECT_TRUE(read("with_bad").equal(read("without")));
}

TEST_F(BadObservationsCli, AllBadIsNoObservation) {
  auto bad = rows();
  std::erase_if(bad,
                [](const Row& row) { return row.reason == "used" || row.reason == "duplicate"; });
  write_rows(runs().file("bad.nc"), bad);
  const auto result = analyze("bad.nc", "all_bad");
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("no usable observation"));
  EXPECT_EQ(record("all_bad")["analyses"][0]["from_no_observations"], true);
  EXPECT_TRUE(state::read_fields(runs().file("all_bad") / "analysis_latlon.nc")
                  .data.isfinite()
                  .all()
                  .item<bool>());
}

TEST_F(BadObservationsCli, UnknownChannelsAndPlatformsAreRejectedAndCounted) {
  auto content =
      obs::make_table(at::full({2}, parse_time("2014-02-01") * 1'000'000'000, at::kLong),
                      at::full({2}, 40.0, at::kDouble), at::full({2}, 255.0, at::kDouble),
                      at::full({2}, 281.0f), obs::variable_number("t2m"));
  content.set("variable", at::tensor({obs::variable_number("t2m"), 99}, at::kInt));
  obs::write_observations(runs().file("channel.nc"), content);
  content.set("variable", at::full({2}, obs::variable_number("t2m"), at::kInt));
  content.set("platform", at::tensor({0, 99}, at::kInt));
  obs::write_observations(runs().file("platform.nc"), content);
  for (const std::string what : {"channel", "platform"}) {
    const auto result = analyze(what + ".nc", what);
    ASSERT_EQ(result.code, 0) << result.output;
    EXPECT_EQ(record(what)["reports"]["unknown_" + what], 1) << what;
  }
}

}  // namespace
}  // namespace halcyon
