// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <netcdf.h>

#include <cmath>
#include <cstring>
#include <random>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/observation_file.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/variables.h"
#include "tests/obs/support.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::obs {
namespace {

namespace fs = std::filesystem;
using test::identical;
using test::message_of;
using test::near;
using test::says;

const char* const kStations = "station,lat,lon\nBoston,42.36,-71.06\nNew_York,40.71,-74.01\n";
const char* const kTemperatures =
    "datetime,New_York,Boston\n"
    "2013-01-01 00:00:00,272.03,269.01\n"
    "2013-01-01 06:00:00,,\"266.77\"\r\n"
    "\n"
    "2013-01-01 12:00:00,nan,1e2\n";

// Three reports in the classic format, as MADIS has them.
void write_madis(const fs::path& path) {
  int id, record, length, name, lat, lon, height, time, t, t_checks, p, direction, speed;
  ASSERT_EQ(nc_create(path.c_str(), NC_CLOBBER, &id), NC_NOERR);
  nc_def_dim(id, "recNum", NC_UNLIMITED, &record);
  nc_def_dim(id, "maxStaNamLen", 5, &length);
  const int text[] = {record, length};
  const auto define = [&](const char* key, nc_type type, const char* units, int* variable) {
    nc_def_var(id, key, type, 1, &record, variable);
    if (units) nc_put_att_text(id, *variable, "units", std::strlen(units), units);
    const float fill = 3.402823e+38F;
    if (type == NC_FLOAT) nc_put_att_float(id, *variable, "_FillValue", NC_FLOAT, 1, &fill);
  };
  nc_def_var(id, "stationName", NC_CHAR, 2, text, &name);
  define("latitude", NC_FLOAT, "degree_north", &lat);
  define("longitude", NC_FLOAT, "degree_east", &lon);
  define("elevation", NC_FLOAT, "meter", &height);
  define("timeObs", NC_DOUBLE, "seconds since 1970-1-1 00:00:00.0", &time);
  define("temperature", NC_FLOAT, "celsius", &t);
  define("temperatureDD", NC_CHAR, nullptr, &t_checks);
  define("seaLevelPress", NC_FLOAT, "pascal", &p);
  define("windDir", NC_FLOAT, "degree", &direction);
  define("windSpeed", NC_FLOAT, "meter/sec", &speed);
  nc_enddef(id);
  const std::size_t start[] = {0, 0}, count[] = {3, 5};
  const float none = 3.402823e+38F;
  const auto put = [&](int variable, std::array<float, 3> values) {
    nc_put_vara_float(id, variable, start, count, values.data());
  };
  nc_put_vara_text(id, name, start, count, "KJFK\0KBOS\0KJFK\0");
  put(lat, {40.5F, 42.25F, none});
  put(lon, {-73.75F, -71, -73.75F});
  put(height, {4, 6, none});
  const double times[] = {1125014400, 1125014460, 1125018000};
  nc_put_vara_double(id, time, start, count, times);
  put(t, {20, none, 25});
  nc_put_vara_text(id, t_checks, start, count, "VZX");
  put(p, {101325, 101000, none});
  put(direction, {270, 990, none});
  put(speed, {10, 2, 0});
  ASSERT_EQ(nc_close(id), NC_NOERR);
}

TEST(OwmCsv, ReadsTheWideTable) {
  const test::TemporaryFolder folder;
  write_text(folder / "us2_stations.csv", kStations);
  write_text(folder / "us2_temperature.csv", kTemperatures);
  const auto content = read_file(folder / "us2_temperature.csv");
  EXPECT_EQ(content.format, "owm_csv");
  EXPECT_EQ(content.missing.at("t2m"), 1);
  const auto& table = content.table;
  const auto nan = table["value"].isnan();  // it is written there, and quality control rejects it
  EXPECT_TRUE(identical(nan, at::tensor({0, 0, 0, 1, 0}).to(at::kBool)));
  EXPECT_TRUE(identical(table["value"].index({nan.logical_not()}),
                        at::tensor({272.03f, 269.01f, 266.77f, 100.f})));
  const auto codes = quality_control(table, SurfaceRules());
  EXPECT_EQ(codes[3].item<int>(), static_cast<int>(Reason::not_finite));
  EXPECT_EQ(table.text("station", 0), "New_York");
  EXPECT_EQ(table.values<double>("lat")[1], 42.36);
  EXPECT_EQ(table.values<int64_t>("time_ns")[2], parse_time("2013-01-01T06:00:00") * 1'000'000'000);
  EXPECT_EQ(
      read_file(folder / "us2_temperature.csv", "auto", {.variables = {"mslp"}, .stations = {}})
          .table.rows(),
      0);
}

// The same table as spreadsheets, R and pandas write it.
TEST(OwmCsv, ReadsWhatOtherProgramsWrite) {
  const test::TemporaryFolder folder;
  const std::string mark = "\xEF\xBB\xBF";
  write_text(folder / "us2_stations.csv", mark +
                                              "\"\",\"station\",\"lat\",\"lon\"\r\n"
                                              "\"1\",\"Boston \",42.36,-71.06\r\n");
  for (const std::string& text :
       {mark + "datetime,Boston\r\n2014-11-10 00:00:00,280.5\r\n",
        mark + "\"datetime\",\"Boston\"\n2014-11-10,280.5\n\n\n",
        std::string("\"\",\"datetime\",\"Boston\"\n\"1\",\"2014-11-10 00:00:00\",280.5\n"),
        std::string(",datetime,Boston\n0,2014-11-10 00:00:00+00:00,280.5\n"),
        std::string("Unnamed: 0,datetime,Boston\n0,2014-11-10,280.5\n"),
        std::string("datetime,Boston,,\r2014-11-10 00:00,+280.5,,\r,,,\r")}) {
    write_text(folder / "us2_t.csv", text);
    const auto table = read_file(folder / "us2_t.csv").table;
    ASSERT_EQ(table.rows(), 1) << text;
    EXPECT_EQ(table["value"].item<float>(), 280.5F) << text;
    EXPECT_EQ(table.values<int64_t>("time_ns")[0], parse_time("2014-11-10") * 1'000'000'000)
        << text;
    EXPECT_EQ(table.text("station", 0), "Boston") << text;
  }
}

TEST(OwmCsv, NamesFileAndLineOfWhatIsWrong) {
  const test::TemporaryFolder folder;
  const auto read = [&](const std::string& text) {
    write_text(folder / "x_t.csv", text);
    return message_of([&] { read_file(folder / "x_t.csv"); });
  };
  EXPECT_TRUE(says(read(kTemperatures), "x_stations.csv, which is not there"));
  write_text(folder / "x_stations.csv", kStations);
  EXPECT_TRUE(says(read("datetime,Paris\n2013-01-01,280\n"), "station Paris has no position"));
  EXPECT_TRUE(says(read("datetime,Boston\n2013-13-01,280\n"), "x_t.csv:2:"));
  EXPECT_TRUE(says(read("datetime,Boston\n2013-01-01,warm\n"), "got \"warm\""));
  EXPECT_TRUE(says(read("datetime,Boston\n2013-01-01\n"), "x_t.csv:2: expected 2 fields"));
  EXPECT_TRUE(says(read("datetime;Boston\n2013-01-01;280,5\n"), "x_t.csv:1: expected columns"));
  EXPECT_TRUE(says(read("datetime\tBoston\n2013-01-01\t280.5\n"), "got tabs"));
  EXPECT_TRUE(says(read("datetime,Boston\n11/10/2014 00:00,280\n"), "x_t.csv:2:"));
  EXPECT_TRUE(
      says(read("datetime,Boston\n2013-01-01,\"1,280\"\n"), "x_t.csv:2: expected a number"));
  EXPECT_TRUE(says(read("datetime,Boston,Boston\n2013-01-01,280,281\n"), "same name Boston"));
  EXPECT_TRUE(says(read("datetime,Bostn\n2013-01-01,280\n"), "did you mean Boston?"));
  EXPECT_TRUE(says(read("datetime,Qu\xE9\n2013-01-01,280\n"), "x_t.csv:1:12: expected UTF-8"));
  EXPECT_TRUE(says(read(std::string("\xFF\xFE"
                                    "d\0a\0",
                                    6)),
                   "x_t.csv: expected UTF-8 text, got UTF-16"));
  EXPECT_TRUE(says(read(std::string("d\0a\0t\0e\0", 8)), "got UTF-16LE"));
  EXPECT_TRUE(says(read("date;Boston\n"), "none of the formats halcyon, madis, owm_csv"));
  EXPECT_TRUE(says(read(""), "none of the formats"));
  write_text(folder / "x_stations.csv", "station,lat,lon\nBoston,95,0\n");
  EXPECT_TRUE(
      says(read("datetime,Boston\n2013-01-01,280\n"), "x_stations.csv:2: expected a position"));
  write_text(folder / "x_stations.csv", "station,lat,lon\nBoston,1,0\nBoston,1,0\n");
  EXPECT_TRUE(says(read("datetime,Boston\n2013-01-01,280\n"), "Boston is there twice"));
  write_text(folder / "x_stations.csv", "station,lat,lon\n,1,0\n");
  EXPECT_TRUE(
      says(read("datetime,Boston\n2013-01-01,280\n"), "x_stations.csv:2: a station without"));
  write_text(folder / "x_stations.csv", "station,lat,lon\nBoston,NA,0\n");
  EXPECT_TRUE(
      says(read("datetime,Boston\n2013-01-01,280\n"), "x_stations.csv:2: expected a position"));
}

TEST(Madis, ReadsReportsWithTheirChecks) {
  const test::TemporaryFolder folder;
  write_madis(folder / "m.nc");
  const auto content = read_file(folder / "m.nc");
  EXPECT_EQ(content.format, "madis");
  const auto& table = content.table;
  const auto of = [&](const char* name) {
    return table.select(table["variable"] == variable_number(name));
  };
  EXPECT_TRUE(identical(of("t2m")["value"], at::tensor({293.15f, 298.15f})));
  EXPECT_TRUE(identical(of("t2m")["provider_flag"], at::tensor({1, 3}, at::kInt)));
  EXPECT_TRUE(identical(of("mslp")["value"], at::tensor({101325.f, 101000.f})));
  EXPECT_TRUE(near(of("u10")["value"], at::tensor({10.f, 0.f}), 1e-6));  // from the west; calm
  EXPECT_TRUE(identical(of("u10")["provider_flag"], at::tensor({0, 0}, at::kInt)));
  EXPECT_EQ(content.missing.at("t2m"), 1);
  EXPECT_EQ(content.missing.at("u10"), 1);
  EXPECT_EQ(table.column("station").names.size(), 2u);
  EXPECT_TRUE(std::isnan(of("t2m")["lat"][1].item<double>()));
  EXPECT_EQ(of("mslp").text("station", 1), "KBOS");
  EXPECT_EQ(of("mslp")["height"][1].item<float>(), 6);
  EXPECT_EQ(of("mslp")["time_ns"][0].item<int64_t>(), 1125014400'000'000'000);
  EXPECT_EQ(
      read_file(folder / "m.nc", "madis", {.variables = {"v10"}, .stations = {}}).table.rows(), 2);
  EXPECT_TRUE(
      says(message_of([&] { read_file(folder / "m.nc", "owm_csv"); }), "not of the format"));
  EXPECT_TRUE(
      says(message_of([&] { read_file(folder / "m.nc", "grib"); }), "expected the format auto"));
  EXPECT_TRUE(says(
      message_of([&] { read_file(folder / "m.nc", "auto", {.variables = {"x"}, .stations = {}}); }),
      "expected one of t2m"));
}

// Names in Latin-1, as older files have them.
TEST(Madis, NamesBecomeUtf8) {
  const test::TemporaryFolder folder;
  write_madis(folder / "m.nc");
  auto bytes = read_text(folder / "m.nc");
  for (auto at = bytes.find("KJFK"); at != std::string::npos; at = bytes.find("KJFK"))
    bytes.replace(at, 4,
                  "Qu\xE9"
                  "b");
  write_text(folder / "m.nc", bytes);
  const auto table = read_file(folder / "m.nc").table;
  EXPECT_EQ(table.text("station", 0), "Qu\u00e9b");
  write_observations(folder / "o.nc", table);
  EXPECT_EQ(read_file(folder / "o.nc").table.text("station", 0), "Qu\u00e9b");
}

TEST(ObservationFile, RoundTripKeepsEveryColumn) {
  const test::TemporaryFolder folder;
  write_madis(folder / "m.nc");
  auto table = read_file(folder / "m.nc").table;
  table.set("qc", at::arange(table.rows(), at::kInt));
  table.set("bias", at::randn({table.rows()}), "by variable");
  auto time = table["time_ns"].clone();
  time[0] = kMissingTimeNs;
  table.set("time_ns", time, table.units("time_ns"));
  write_observations(folder / "o.nc", table, {{"history", "a test"}});
  const auto back = read_file(folder / "o.nc");
  EXPECT_EQ(back.format, "halcyon");
  ASSERT_EQ(back.table.columns().size(), table.columns().size());
  for (const auto& [name, column] : table.columns()) {
    EXPECT_TRUE(identical(back.table[name], column.data)) << name;
    EXPECT_EQ(back.table.units(name), column.units) << name;
    EXPECT_EQ(back.table.column(name).names, column.names) << name;
  }
  const auto some =
      read_file(folder / "o.nc", "auto", {.variables = {"mslp", "t2m"}, .stations = {}});
  EXPECT_EQ(some.table.rows(), 4);
  const auto empty = table.select(at::empty({0}, at::kLong));
  write_observations(folder / "e.nc", empty);
  EXPECT_EQ(read_file(folder / "e.nc").table.rows(), 0);
  EXPECT_THROW(write_observations(folder / "o.nc", Table()), Error);
}

TEST(ObservationFile, NumbersFollowTheFilesOwnNames) {
  const test::TemporaryFolder folder;
  const auto table = test::table_of({{"2014-04-01", "a", 280}});
  const auto write = [&](const char* meanings, int32_t number) {
    write_netcdf(folder / "o.nc", [&](NetcdfWriter& out) {
      out.dimension("row", 1);
      out.dimension("station_names", 1);
      out.attribute("", "halcyon_observations", "1");
      for (const auto& [name, column] : table.columns())
        out.variable(name, column.data.scalar_type(), {"row"});
      out.string_variable("station_names", {"station_names"});
      out.attribute("variable", "flag_meanings", meanings);
      out.attribute("platform", "flag_meanings", "land_station");
      out.attribute("provider_flag", "flag_meanings", "unchecked");
      for (const auto& [name, column] : table.columns())
        out.write(name, name == "variable" ? at::full({1}, number, at::kInt)
                        : name == "platform" || name == "provider_flag" ? at::zeros({1}, at::kInt)
                                                                        : column.data);
      out.write_strings("station_names", {"a"});
    });
  };
  write("v10 mslp", 1);
  EXPECT_EQ(read_file(folder / "o.nc").table["variable"].item<int>(), variable_number("mslp"));
  EXPECT_EQ(read_file(folder / "o.nc").table["platform"].item<int>(), 1);
  // what this version does not know is rejected row by row
  for (const int number : {2, 1, -7}) {
    write("v10 ozone", number);
    const auto read_back = read_file(folder / "o.nc").table;
    EXPECT_EQ(
        read_file(folder / "o.nc", "auto", {.variables = {"t2m"}, .stations = {}}).table.rows(), 1);
    EXPECT_EQ(quality_control(read_back, SurfaceRules()).item<int>(),
              static_cast<int>(Reason::unknown_channel))
        << number;
  }
}

TEST(Files, PatternsAreExpandedAndJoined) {
  const test::TemporaryFolder folder;
  write_madis(folder / "b.nc");
  write_madis(folder / "a.nc");
  const auto pattern = (folder.path() / "?.nc").string();
  const auto files = expand({pattern, (folder / "a.nc").string()});
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].filename(), "a.nc");
  EXPECT_EQ(read_files(files).rows(), 2 * read_file(files[0]).table.rows());
  EXPECT_TRUE(says(message_of([&] { expand({(folder / "*.csv").string()}); }), "no file matches"));
}

// A damaged file gives an Error(input) that names it, or a table; never anything else.
void damage(const fs::path& whole, const fs::path& damaged, int rounds, unsigned seed) {
  const auto text = read_text(whole);
  std::mt19937 random(seed);
  for (int i = 0; i < rounds; ++i) {
    auto bytes = text;
    if (i % 3 == 0) bytes.resize(random() % bytes.size());
    for (int flips = i % 5; flips > 0 && !bytes.empty(); --flips)
      bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    write_text(damaged, bytes);
    try {
      read_file(damaged);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::input) << e.what();
      EXPECT_TRUE(says(e.what(), damaged.filename().string()) || says(e.what(), "_stations.csv"))
          << e.what();
    }
  }
}

TEST(Readers, DamagedFilesNeverCrash) {
  const test::TemporaryFolder folder;
  write_text(folder / "us2_stations.csv", kStations);
  write_text(folder / "us2_t.csv", kTemperatures);
  damage(folder / "us2_t.csv", folder / "us2_bad.csv", 500, 1);
  write_madis(folder / "m.nc");
  damage(folder / "m.nc", folder / "bad.nc", 1000, 2);
  write_observations(folder / "o.nc", read_file(folder / "m.nc").table);
  damage(folder / "o.nc", folder / "bad4.nc", 100, 3);
}

TEST(RealFiles, CityTemperatures) {
  HALCYON_NEEDS_SHARED();
  const auto folder = test::shared_dir() / "data/owm_us_cities_hourly";
  const auto csv = read_file(folder / "us26_temperature_6h_2013_2014.csv");
  EXPECT_EQ(csv.table.rows(), 75910);
  EXPECT_EQ(csv.missing.at("t2m"), 10);
  EXPECT_NEAR(csv.table["value"].to(at::kDouble).mean().item<double>(), 287.4987989787229, 1e-6);
  EXPECT_EQ(csv.table.column("station").names.size(), 26u);

  const auto nc = read_file(folder / "owm_us26_hourly_2012_2017.nc");
  EXPECT_EQ(nc.format, "owm_netcdf");
  EXPECT_EQ(nc.table.rows(), 1174911 + 1171036 + 1158602);
  EXPECT_EQ(nc.missing.at("mslp"), 5542);
  const auto t2m = nc.table.select(nc.table["variable"] == variable_number("t2m"));
  EXPECT_EQ((t2m["provider_flag"] == 4).sum().item<int64_t>(), 123085);
  EXPECT_NEAR(t2m["value"].to(at::kDouble).mean().item<double>(), 288.09797596583905, 1e-4);
  EXPECT_EQ(t2m["time_ns"][0].item<int64_t>(), parse_time("2012-10-01T13:00:00") * 1'000'000'000);
  const auto mslp = nc.table.select(nc.table["variable"] == variable_number("mslp"));
  EXPECT_NEAR(mslp["value"].to(at::kDouble).mean().item<double>(), 101811.96803514454, 0.1);
}

TEST(RealFiles, MadisGzipped) {
  HALCYON_NEEDS_SHARED();
  const auto folder = test::shared_dir() / "data/multiplatform_20050826_00z";
  const auto metar = read_file(folder / "2005082600_metar.nc.gz"),
             marine = read_file(folder / "2005082600_marine.nc.gz");
  const auto count = [](const Content& c, const char* name) {
    return (c.table["variable"] == variable_number(name)).sum().item<int64_t>();
  };
  EXPECT_EQ(count(metar, "t2m"), 3274);
  EXPECT_EQ(count(metar, "td2m"), 3202);
  EXPECT_EQ(count(metar, "mslp"), 1376);
  EXPECT_EQ(count(metar, "u10"), 3200);
  EXPECT_EQ(count(marine, "t2m"), 713);
  EXPECT_EQ(count(marine, "mslp"), 997);
  EXPECT_EQ(count(marine, "ps"), 419);
  EXPECT_EQ(count(marine, "v10"), 658);
  const auto v = marine.table.select(marine.table["variable"] == variable_number("v10"));
  EXPECT_NEAR(v["value"].mean().item<double>(), 0.6777012606666235, 1e-6);
  EXPECT_GT((marine.table["platform"] == platform_number("fixed_buoy")).sum().item<int64_t>(), 0);
  // the pressures of the box that the published baseline uses
  auto both = metar.table;
  both.append(marine.table);
  const auto in_box = (both["variable"] == variable_number("mslp"))
                          .logical_and((both["value"] - 100000).abs() < 6000)
                          .logical_and((both["lat"] - 50).abs() < 20)
                          .logical_and((both["lon"] + 30).abs() < 40);
  EXPECT_EQ(in_box.sum().item<int64_t>(), 286);
}

}  // namespace
}  // namespace halcyon::obs
