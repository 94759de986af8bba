// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/same_station.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "halcyon/base/time.h"
#include "halcyon/obs/quality_control.h"
#include "tests/obs/support.h"
#include "tests/support/compare.h"

namespace halcyon::obs {
namespace {

using test::table_of;

// For each row whether it says again what an earlier one says.
std::vector<bool> repeated(const Table& table) {
  Duplicates duplicates(table);
  std::vector<bool> out;
  for (int64_t i = 0; i < table.rows(); ++i) out.push_back(duplicates.seen(i));
  return out;
}

// Whether the second of two reports of a station repeats the first.
bool same_place(double lat, double lon, double other_lat, double other_lon,
                const std::string& station = "a") {
  return repeated(table_of({{"2014-04-01", station, 280, lat, lon},
                            {"2014-04-01", station, 280, other_lat, other_lon}}))[1];
}

TEST(Duplicates, PlacesAgreeToAHundredthOfADegree) {
  for (const std::string station : {"a", ""}) {
    EXPECT_TRUE(same_place(39.87, -104.65625, 39.87, 255.34375, station));
    EXPECT_TRUE(same_place(39.87F, -104.67F, 39.87, -104.67, station));
    EXPECT_TRUE(same_place(39.874, -104.674, 39.876, -104.676, station));  // round differently
    EXPECT_TRUE(same_place(39.879, -104.66, 39.87, -104.66, station));     // rounded and cut
    EXPECT_TRUE(same_place(10, 359.999, 10, 0.001, station));
    EXPECT_TRUE(same_place(10, 180, 10, -180, station));
    EXPECT_TRUE(same_place(-10, -0.004, -10, 360, station));
    EXPECT_TRUE(same_place(90, 0, 90, 123, station));
    EXPECT_TRUE(same_place(-89.999, 0, -89.999, 180, station));
    EXPECT_FALSE(same_place(39.87, -104.66, 39.89, -104.66, station));
    EXPECT_FALSE(same_place(39.87, -104.66, 39.87, -104.68, station));
    EXPECT_FALSE(same_place(10, 359.98, 10, 0.001, station));
    EXPECT_FALSE(same_place(10, 0, 10, 180, station));
    EXPECT_FALSE(same_place(89.9, 0, 89.9, 180, station));
  }
}

// Wherever two places lie, they are found together, however cells are cut.
TEST(Duplicates, NoBorderSplitsNeighbours) {
  const auto generator = at::detail::createCPUGenerator(3);
  const auto random = at::rand({4000, 4}, generator, at::kDouble);
  const auto* r = random.const_data_ptr<double>();
  for (int i = 0; i < 4000; ++i, r += 4) {
    const double lat = 180 * r[0] - 90, lon = 360 * r[1] - 180;
    const double other = std::clamp(lat + 0.0099 * (2 * r[2] - 1), -90.0, 90.0);
    const double ring = std::max(std::cos(lat * M_PI / 180), std::cos(other * M_PI / 180));
    const double along = std::min(180.0, 0.0099 * (2 * r[3] - 1) / ring);
    EXPECT_TRUE(same_place(lat, lon, other, lon + along)) << lat << " " << lon;
  }
}

TEST(Duplicates, TimesAgreeToTheMinute) {
  const auto at = [](const char* time) -> bool {
    return repeated(table_of({{"2014-04-01T00:00:50", "a", 280}, {time, "a", 280}}))[1];
  };
  EXPECT_TRUE(at("2014-04-01T00:00:50"));
  EXPECT_TRUE(at("2014-04-01T00:00:00"));
  EXPECT_TRUE(at("2014-04-01T00:01:10"));  // the next minute of the clock, but 20 s
  EXPECT_TRUE(at("2014-03-31T23:59:55"));
  EXPECT_FALSE(at("2014-04-01T00:01:50"));
  EXPECT_FALSE(at("2014-03-31T23:59:50"));
  EXPECT_FALSE(at("2014-04-02T00:00:50"));
}

TEST(Duplicates, StationsAreIdentifiersElsePlaces) {
  // other stations beside it, a report without identifier, the same station's other variable
  EXPECT_EQ(repeated(table_of({{"2014-04-01", "a", 280},
                               {"2014-04-01", "b", 280},
                               {"2014-04-01", "", 280},
                               {"2014-04-01", "a", 270, 40, -100, "td2m"},
                               {"2014-04-01", "a", 281}})),
            (std::vector<bool>{false, false, true, false, true}));
  // what had no name has that of the first that repeats it: others are not the same
  EXPECT_EQ(repeated(table_of({{"2014-04-01", "", 280},
                               {"2014-04-01", "a", 280},
                               {"2014-04-01", "b", 280},
                               {"2014-04-01", "a", 280},
                               {"2014-04-01", "", 280}})),
            (std::vector<bool>{false, true, false, true, true}));
  // ships that share a name are apart
  EXPECT_EQ(repeated(table_of(
                {{"2014-04-01", "SHIP", 280, 40, -30}, {"2014-04-01", "SHIP", 280, 45, -30}})),
            (std::vector<bool>{false, false}));
  // levels of one ascent
  auto levels = table_of({{"2014-04-01", "a", 280}, {"2014-04-01", "a", 270}});
  levels.set("pressure", at::tensor({850.f, 700.f}), "hPa");
  EXPECT_EQ(repeated(levels), (std::vector<bool>{false, false}));
  // nothing is known of rows without a place
  EXPECT_EQ(
      repeated(table_of({{"2014-04-01", "a", 280, NAN, 0}, {"2014-04-01", "a", 280, NAN, 0}})),
      (std::vector<bool>{false, false}));
}

TEST(Duplicates, AMillionRowsTakeSeconds) {
  constexpr int64_t n = 1'000'000;
  const auto lat = at::full({n}, 40.0, at::kDouble);
  const auto time = at::arange(n, at::kLong).div(2, "floor") * 300'000'000'000;
  auto table = make_table(time, lat, lat, lat, 0);
  SurfaceRules rules;
  rules.range["t2m"] = {0, 400};
  const auto start = std::chrono::steady_clock::now();
  const auto codes = quality_control(table, rules);  // of one station
  EXPECT_EQ((codes == static_cast<int>(Reason::duplicate)).sum().item<int64_t>(), n / 2);
  // all at one time and place, each another station
  table.set("time_ns", at::zeros({n}, at::kLong));
  std::vector<std::string> names(n);
  for (int64_t i = 0; i < n; ++i) names[static_cast<std::size_t>(i)] = std::to_string(i);
  table.set_text("station", at::arange(n, at::kLong), names);
  EXPECT_EQ(quality_control(table, rules).sum().item<int64_t>(), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(StationIndex, FindsAShipThatMoves) {
  const auto table = table_of({{"2014-04-01", "a", 280, 40, -30},
                               {"2014-04-01", "a", 280, 40.4, -30.4},
                               {"2014-04-01", "a", 280, 41, -30},
                               {"2014-04-01", "b", 280, 40, -30},
                               {"2014-04-01", "", 280, 40.4, -30.4},
                               {"2014-04-01", "", 280, 40.005, -30}});
  StationIndex index(table, kSameName);
  index.add(0, 5);
  EXPECT_EQ(index.find(1, 5), 0);
  EXPECT_EQ(index.find(1, 6), -1);
  EXPECT_EQ(index.find(2, 5), -1);
  EXPECT_EQ(index.find(3, 5), -1);
  EXPECT_EQ(index.find(4, 5), -1);  // without a name only the place counts
  EXPECT_EQ(index.find(5, 5), 0);
}

TEST(SurfaceControl, WithheldStationsHideTheirPlace) {
  SurfaceRules rules;
  rules.blocked_stations = {"a"};
  const auto codes = quality_control(table_of({{"2014-04-01", "", 280, 40, 260},
                                               {"2014-04-01", "a", 280, 40, -100},
                                               {"2014-04-01", "b", 280, 40, -100},
                                               {"2014-04-01", "", 280, 41, -100}}),
                                     rules);
  const auto blocked = static_cast<int32_t>(Reason::blocked_station);
  EXPECT_TRUE(test::identical(codes, at::tensor({blocked, blocked, 0, 0}, at::kInt)));
}

}  // namespace
}  // namespace halcyon::obs
