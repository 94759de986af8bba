// SPDX-License-Identifier: Apache-2.0
// Files that lack something: what nobody asked for is not demanded, what is needed is named.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/observation_file.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/summary.h"
#include "halcyon/obs/variables.h"
#include "tests/obs/support.h"
#include "tests/support/paths.h"

namespace halcyon::obs {
namespace {

using test::message_of;
using test::says;
using testing::Contains;
using testing::HasSubstr;
using Names = std::set<std::string>;

// Two reports of everything that MADIS has for METAR and ships, without some of it.
class Madis : public testing::Test {
 protected:
  Content read(const Names& without, std::vector<std::string> variables = {},
               const Names& without_units = {}, const Names& extra = {}) {
    write_netcdf(path(), [&](NetcdfWriter& out) {
      out.dimension("recNum", 2);
      const auto put = [&](const std::string& name, const char* units, std::vector<double> values) {
        if (without.contains(name)) return;
        out.variable(name, at::kDouble, {"recNum"});
        if (units && !without_units.contains(name)) out.attribute(name, "units", units);
        out.write(name, at::tensor(values, at::kDouble));
      };
      if (!without.contains("stationName")) {
        out.string_variable("stationName", {"recNum"});
        out.write_strings("stationName", {"KAAA", "KBBB"});
      }
      put("latitude", "degree_north", {40, 41});
      put("longitude", "degree_east", {-100, -101});
      put("elevation", "meter", {10, 20});
      put("timeObs", "seconds since 1970-1-1 00:00:00.0", {1415577600, 1415577600});
      put("temperature", "kelvin", {280, 281});
      put("dewpoint", "kelvin", {270, 271});
      put("seaLevelPress", "pascal", {101300, 101400});
      put("stationPress", "hectopascal", {990, 991});
      put("windDir", "degree", {270, 90});
      put("windSpeed", "meter/sec", {5, 6});
      for (const auto& name : extra) put(name, nullptr, {0, 1});
      for (const char* name :
           {"temperature", "dewpoint", "seaLevelPress", "stationPress", "windDir", "windSpeed"}) {
        const auto checks = name + std::string("DD");
        if (without.contains(checks)) continue;
        out.string_variable(checks, {"recNum"});
        out.write_strings(checks, {"V", "X"});
      }
    });
    return read_file(path(), "auto", {.variables = std::move(variables), .stations = {}});
  }
  std::filesystem::path path() const { return folder_ / "m.nc"; }

 private:
  test::TemporaryFolder folder_;
};

TEST_F(Madis, NothingIsDemandedThatNobodyAskedFor) {
  const Names everything = {"stationName",   "elevation",       "temperature",    "dewpoint",
                            "seaLevelPress", "stationPress",    "windDir",        "windSpeed",
                            "temperatureDD", "seaLevelPressDD", "stationPressDD", "windSpeedDD"};
  for (const auto& absent : everything) {
    const auto content = read({absent});
    EXPECT_EQ(content.format, "madis") << absent;
    EXPECT_THAT(content.notes, Contains(HasSubstr("no " + absent))) << absent;
    // what is there is as it would be otherwise
    if (absent == "temperature") continue;
    const auto t2m = content.table.select(content.table["variable"] == variable_number("t2m"));
    EXPECT_TRUE(t2m["value"].equal(at::tensor({280.F, 281.F}))) << absent;
    EXPECT_TRUE(t2m["provider_flag"].equal(
        absent == "temperatureDD" ? at::tensor({0, 0}, at::kInt) : at::tensor({1, 3}, at::kInt)))
        << absent;
    EXPECT_TRUE(absent == "elevation" ? t2m["height"].isnan().all().item<bool>()
                                      : t2m["height"].equal(at::tensor({10.F, 20.F})))
        << absent;
    EXPECT_EQ(t2m.text("station", 1), absent == "stationName" ? "" : "KBBB");
  }
  EXPECT_TRUE(read({}).notes.empty());
  // one element alone, and only it is asked for
  auto others = everything;
  others.erase("temperature");
  others.erase("stationName");
  EXPECT_EQ(read(others, {"t2m"}).table.rows(), 2);
}

TEST_F(Madis, WhatIsNeededIsNamed) {
  for (const std::string needed : {"latitude", "longitude", "timeObs"}) {
    const auto message = message_of([&] { read({needed}); });
    EXPECT_TRUE(says(message, "m.nc: expected a variable " + needed)) << message;
  }
  const auto message = message_of([&] { read({}, {}, {"timeObs"}); });
  EXPECT_TRUE(says(message, "timeObs has no units")) << message;
  EXPECT_TRUE(says(message_of([&] { read({}, {}, {"temperature"}); }),
                   "expected units of temperature, got none"));
}

TEST_F(Madis, UnitsAreDemandedOfWhatIsAskedForOnly) {
  EXPECT_EQ(read({}, {"t2m"}, {"dewpoint", "windSpeed", "latitude", "longitude"}).table.rows(), 2);
  const auto content = read({}, {"t2m"}, {"elevation"});
  EXPECT_TRUE(content.table["height"].isnan().all().item<bool>());
  EXPECT_THAT(content.notes, Contains(HasSubstr("heights of stations are unknown")));
}

TEST_F(Madis, PlatformsOfTheSeaAreNotTakenForLand) {
  const auto number = [](const Content& content) {
    return content.table["platform"][0].item<int32_t>();
  };
  EXPECT_EQ(number(read({})), platform_number("land_station"));
  EXPECT_EQ(number(read({}, {}, {}, {"waveHeight"})), platform_number("unknown"));
  EXPECT_EQ(number(read({}, {}, {}, {"waveHeight", "dataPlatformType"})),
            platform_number("fixed_buoy"));
}

TEST_F(Madis, ReportsOfAircraftAreNotSurfaceReports) {
  EXPECT_TRUE(says(message_of([&] { read({}, {}, {}, {"altitude"}); }), "none of the formats"));
}

TEST_F(Madis, TheSummaryTellsWhatIsNotThere) {
  const auto facts = summary(path(), read({"temperatureDD", "elevation"}));
  EXPECT_THAT(summary_text(facts), HasSubstr("no temperatureDD: temperature is unchecked"));
  EXPECT_EQ(facts["notes"].size(), 2U);
}

class Cities : public testing::Test {
 protected:
  Content read(const Names& without, const char* units = "K",
               std::vector<std::string> variables = {}) {
    write_netcdf(path(), [&](NetcdfWriter& out) {
      out.dimension("time", 2);
      out.dimension("station", 1);
      const auto put = [&](const std::string& name, const char* of,
                           const std::vector<std::string>& dimensions, const at::Tensor& values) {
        if (without.contains(name)) return;
        out.variable(name, at::kDouble, dimensions);
        if (of) out.attribute(name, "units", of);
        out.write(name, values.to(at::kDouble));
      };
      put("time", "hours since 2014-01-01", {"time"}, at::tensor({0, 6}));
      put("lat", nullptr, {"station"}, at::tensor({40}));
      put("lon", nullptr, {"station"}, at::tensor({-100}));
      const auto values = [](double a) { return at::tensor({a, a + 1}, at::kDouble).view({2, 1}); };
      put("temperature", units, {"time", "station"}, values(280));
      put("pressure", "hPa", {"time", "station"}, values(1010));
      put("humidity", "%", {"time", "station"}, values(50));
      if (without.contains("station")) return;
      out.string_variable("station", {"station"});
      out.write_strings("station", {"Alba"});
    });
    return read_file(path(), "auto", {.variables = std::move(variables), .stations = {}});
  }
  std::filesystem::path path() const { return folder_ / "c.nc"; }

 private:
  test::TemporaryFolder folder_;
};

TEST_F(Cities, NothingIsDemandedThatNobodyAskedFor) {
  for (const std::string absent : {"temperature", "pressure", "humidity", "station"}) {
    const auto content = read({absent});
    EXPECT_EQ(content.format, "owm_netcdf");
    EXPECT_EQ(content.table.rows(), absent == "station" ? 6 : 4) << absent;
    EXPECT_THAT(content.notes, Contains(HasSubstr("no " + absent)));
  }
  for (const std::string needed : {"time", "lat", "lon"})
    EXPECT_TRUE(says(message_of([&] { read({needed}); }), "expected a variable " + needed));
}

TEST_F(Cities, UnitsAreHeeded) {
  const auto first = [&](const char* units) {
    return read({"pressure", "humidity"}, units).table["value"][0].item<float>();
  };
  EXPECT_EQ(first("kelvin"), 280);
  EXPECT_FLOAT_EQ(first("degC"), 553.15F);
  EXPECT_TRUE(says(message_of([&] { first(nullptr); }), "temperature has the units none"));
  EXPECT_TRUE(says(message_of([&] { first("hPa"); }), "temperature has the units hPa"));
  EXPECT_EQ(read({}, "furlong", {"mslp"}).table.rows(), 2);
}

// The own format, as others may have changed it.
class OwnFile : public testing::Test {
 protected:
  // with(name, writer) puts a column itself and says so.
  Content read(const Names& without,
               const std::function<bool(const std::string&, NetcdfWriter&)>& with = {}) {
    const auto table = test::table_of({{"2014-04-01T06:00", "a", 280}, {"2014-04-01", "b", 281}});
    write_netcdf(path(), [&](NetcdfWriter& out) {
      out.dimension("row", 2);
      out.dimension("station_names", 2);
      out.attribute("", "halcyon_observations", "1");
      out.variable("crs", at::kInt, {});  // as other tools add
      out.write("crs", at::zeros({}, at::kInt));
      out.string_variable("station_names", {"station_names"});
      out.write_strings("station_names", {"a", "b"});
      for (const auto& [name, column] : table.columns()) {
        if (without.contains(name) || (with && with(name, out))) continue;
        out.variable(name, column.data.scalar_type(), {"row"});
        out.attribute(name, "units", column.units);
        if (name == "variable") out.attribute(name, "flag_meanings", "t2m");
        if (name == "provider_flag") out.attribute(name, "flag_meanings", "unchecked passed");
        if (name == "platform") out.attribute(name, "flag_meanings", "unknown land_station");
        out.write(name, column.data);
      }
    });
    return read_file(path());
  }
  std::filesystem::path path() const { return folder_ / "o.nc"; }

 private:
  test::TemporaryFolder folder_;
};

TEST_F(OwnFile, NothingIsDemandedThatNobodyAskedFor) {
  for (const std::string absent :
       {"height", "pressure", "error_sd", "provider_flag", "platform", "station"}) {
    const auto content = read({absent});
    EXPECT_THAT(content.notes, Contains(HasSubstr("no column " + absent)));
    EXPECT_TRUE(content.table["value"].equal(at::tensor({280.F, 281.F}))) << absent;
    EXPECT_EQ(quality_control(content.table, SurfaceRules()).sum().item<int64_t>(), 0) << absent;
  }
  EXPECT_TRUE(read({}).notes.empty());
  for (const std::string needed : {"time_ns", "lat", "lon", "value", "variable"})
    EXPECT_TRUE(says(message_of([&] { read({needed}); }), "expected a column " + needed));
}

TEST_F(OwnFile, PackedColumnsAndMarksAreResolved) {
  const auto packed = read({}, [](const std::string& name, NetcdfWriter& out) {
    if (name == "value") {
      out.variable(name, at::kShort, {"row"}, {.fill = -1});
      out.attribute(name, "scale_factor", std::vector<double>{0.5});
      out.attribute(name, "add_offset", std::vector<double>{200});
      out.write(name, at::tensor({160, -1}, at::kShort));
    } else if (name == "lat") {
      out.variable(name, at::kFloat, {"row"});
      out.attribute(name, "missing_value", std::vector<double>{-9999.9});
      out.write(name, at::tensor({40.F, -9999.9F}));
    } else if (name == "time_ns") {
      out.variable(name, at::kDouble, {"row"});
      out.attribute(name, "units", "hours since 2014-04-01");
      out.write(name, at::tensor({6.0, NAN}, at::kDouble));
    } else {
      return false;
    }
    return true;
  });
  const auto& table = packed.table;
  EXPECT_EQ(table["value"][0].item<float>(), 280);
  EXPECT_TRUE(table["value"][1].isnan().item<bool>());
  EXPECT_TRUE(table["lat"][1].isnan().item<bool>());
  EXPECT_EQ(table["time_ns"][0].item<int64_t>(), parse_time("2014-04-01T06") * 1'000'000'000);
  EXPECT_EQ(table["time_ns"][1].item<int64_t>(), kMissingTimeNs);
}

}  // namespace
}  // namespace halcyon::obs
