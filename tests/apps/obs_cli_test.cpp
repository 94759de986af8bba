// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "halcyon/base/files.h"
#include "tests/apps/program.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using test::halcyon_says;
using testing::AllOf;
using testing::HasSubstr;

class ObsCli : public testing::Test {
 protected:
  ObsCli() {
    write_text(folder_ / "us_stations.csv", "station,lat,lon\nBoston,42.36,-71.06\n");
    write_text(folder_ / "us_t.csv",
               "datetime,Boston\n2014-04-01 00:00:00,280\n2014-04-01 06:00:00,\n"
               "2014-04-01 12:00:00,500\n");
  }
  std::string path(const std::string& name) const { return "'" + (folder_ / name).string() + "'"; }
  test::TemporaryFolder folder_;
};

TEST_F(ObsCli, InspectTellsWhatAFileHolds) {
  const auto text = halcyon_says("obs inspect " + path("us_t.csv"));
  EXPECT_EQ(text.code, 0) << text.output;
  EXPECT_THAT(text.output,
              AllOf(HasSubstr("owm_csv"), HasSubstr("2 of 1 stations"),
                    HasSubstr("2014-04-01T00:00:00Z to 2014-04-01T12:00:00Z"),
                    HasSubstr("-71.06 to -71.06 east"), HasSubstr("outside_valid_range")));
  const auto json = halcyon_says("obs inspect --json " + path("us_t.csv"), "");
  const auto facts = nlohmann::json::parse(json.output).at(0);
  EXPECT_EQ(facts["rows"], 2);
  EXPECT_EQ(facts["variables"][0]["missing"], 1);
  EXPECT_EQ(facts["variables"][0]["mean"], 390);
  EXPECT_EQ(facts["quality_control"]["outside_valid_range"], 1);
  EXPECT_EQ(facts["quality_control"]["kept"], 1);
}

TEST_F(ObsCli, ConvertsToNetcdfAndCsv) {
  const auto made = halcyon_says("obs convert --qc " + path("us_t.csv") + " -o " + path("o.nc"));
  EXPECT_EQ(made.code, 0) << made.output;
  EXPECT_THAT(made.output, HasSubstr("2 rows from 1 files"));
  EXPECT_THAT(halcyon_says("obs inspect " + path("o.nc")).output, HasSubstr("halcyon"));
  EXPECT_EQ(halcyon_says("obs convert " + path("o.nc") + " -o " + path("o.csv")).code, 0);
  const auto csv = read_text(folder_ / "o.csv");
  EXPECT_THAT(csv, AllOf(HasSubstr("time,error_sd,height,lat,lon,platform,"),
                         HasSubstr("2014-04-01T00:00:00Z,,,42.36,-71.06,land_station,"),
                         HasSubstr(",kept,Boston,280,t2m\n"),
                         HasSubstr(",outside_valid_range,Boston,500,t2m\n")));
}

TEST_F(ObsCli, ErrorsNameTheFile) {
  write_text(folder_ / "bad.nc", "CDF\x01 and then nothing");
  const std::tuple<std::string, int, const char*> cases[] = {
      {"obs", 2, "subcommand is required"},
      {"obs inspect", 2, "files is required"},
      {"obs inspect /no/such.nc", 4, "/no/such.nc"},
      {"obs inspect " + path("bad.nc"), 4, "bad.nc"},
      {"obs inspect " + path("us_stations.csv"), 4, "none of the formats"},
      {"obs inspect --format grib " + path("us_t.csv"), 2, "grib"},
      {"obs inspect --variables t3m " + path("us_t.csv"), 2, "expected one of t2m"},
      {"obs convert " + path("us_t.csv") + " -o x.txt", 2, "ends in .nc or .csv"},
      {"obs convert " + path("us_t.csv") + " -o /no/such/x.nc", 5, "x.nc"},
  };
  for (const auto& [arguments, code, reason] : cases) {
    const auto result = halcyon_says(arguments);
    EXPECT_EQ(result.code, code) << arguments << "\n" << result.output;
    EXPECT_THAT(result.output, HasSubstr(reason)) << arguments;
  }
}

}  // namespace
}  // namespace halcyon
