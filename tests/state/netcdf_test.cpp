// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/time.h"
#include "halcyon/state/read_fields.h"
#include "halcyon/state/write_fields.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::state {
namespace {

using test::identical;
using test::near;
using test::TemporaryFolder;

template <class F>
void expect_error(F&& run, ErrorKind kind, const std::string& part) {
  try {
    run();
    FAIL() << "no error; expected one with: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

Fields some_fields(Grid grid) {
  const int64_t points = size_of(grid);
  at::Tensor data = at::arange(2 * 2 * points, at::kFloat).view({2, 2, points}) / 7;
  data[1][0][points - 1] = std::numeric_limits<float>::quiet_NaN();
  return {{{"t2m", "air_temperature", "2 m temperature", "K"}, {"msl", "", "", "Pa"}},
          std::move(grid),
          {parse_time("2014-07-01T00:00:00Z"), parse_time("2014-07-01T06:00:00Z")},
          data};
}

void expect_same(const Fields& actual, const Fields& expected) {
  EXPECT_EQ(actual.variables, expected.variables);
  EXPECT_EQ(actual.times, expected.times);
  EXPECT_TRUE(actual.grid == expected.grid);
  EXPECT_TRUE(identical(actual.data, expected.data));
}

TEST(FieldsFile, LatLonRoundTrip) {
  const TemporaryFolder folder;
  const Fields fields = some_fields(LatLonGrid({60, 57.5, 55}, {350, 355, 360, 365}));
  write_fields(folder / "a.nc", fields,
               {.title = "An analysis",
                .institution = "",
                .source = "test",
                .history = "made",
                .references = "",
                .comment = "",
                .more = {{"halcyon_arguments", "a & b"}}});
  expect_same(read_fields(folder / "a.nc"), fields);
  const NetcdfReader file(folder / "a.nc");
  EXPECT_EQ(file.text("", "Conventions"), "CF-1.13");
  EXPECT_EQ(file.text("", "title"), "An analysis");
  EXPECT_EQ(file.text("", "halcyon_arguments"), "a & b");
  EXPECT_FALSE(file.text("", "institution"));
  EXPECT_EQ(file.variable("t2m").dimensions, (std::vector<std::string>{"time", "lat", "lon"}));
  EXPECT_EQ(file.text("t2m", "standard_name"), "air_temperature");
  EXPECT_EQ(file.text("t2m", "cell_methods"), "time: point");
  EXPECT_EQ(file.text("time", "units"), "hours since 1970-01-01 00:00:00");
  EXPECT_EQ(file.text("lat", "units"), "degrees_north");
}

TEST(FieldsFile, StaticFieldsAndOddSeconds) {
  const TemporaryFolder folder;
  Fields fields = some_fields(LatLonGrid({0, 1}, {10, 20, 30}));
  fields.times = {1, 86399};
  write_fields(folder / "s.nc", fields);
  expect_same(read_fields(folder / "s.nc"), fields);
  fields.times.clear();
  fields.data = fields.data.narrow(0, 0, 1).clone();
  write_fields(folder / "s.nc", fields);
  const Fields back = read_fields(folder / "s.nc", {.variables = {"msl", "t2m"}, .times = {}});
  EXPECT_TRUE(back.is_static());
  EXPECT_EQ(back.variables[0].name, "msl");
  EXPECT_TRUE(identical(back.data.select(1, 1), fields.data.select(1, 0)));
}

// A file as others write it: (lon, level, lat, time) with packed shorts and a repeated meridian.
void write_foreign(const std::filesystem::path& path) {
  halcyon::write_netcdf(path, [](NetcdfWriter& file) {
    file.dimension("x", 5);
    file.dimension("lev", 2);
    file.dimension("y", 2);
    file.dimension("t", 3);
    file.variable("x", at::kDouble, {"x"});
    file.attribute("x", "units", "degrees_east");
    file.write("x", at::tensor({0.0, 90.0, 180.0, 270.0, 360.0}, at::kDouble));
    file.variable("y", at::kFloat, {"y"});
    file.attribute("y", "units", "degrees_north");
    file.write("y", at::tensor({-30.0f, 30.0f}));
    file.variable("lev", at::kDouble, {"lev"});
    file.attribute("lev", "units", "hPa");
    file.write("lev", at::tensor({500.0, 850.0}, at::kDouble));
    file.variable("t", at::kInt, {"t"});
    file.attribute("t", "units", "days since 2000-01-01");
    file.write("t", at::tensor({0, 1, 3}, at::kInt));
    file.variable("z", at::kShort, {"x", "lev", "y", "t"}, {.fill = -999});
    file.attribute("z", "scale_factor", std::vector<double>{0.5});
    file.attribute("z", "add_offset", std::vector<double>{100});
    at::Tensor values = at::arange(60, at::kShort).view({5, 2, 2, 3});
    values[1][1][0][2] = -999;
    file.write("z", values);
    file.variable("bounds", at::kDouble, {"lev", "y"});
  });
}

TEST(FieldsFile, ReadsForeignLayouts) {
  const TemporaryFolder folder;
  write_foreign(folder / "f.nc");
  const Fields all = read_fields(folder / "f.nc");
  ASSERT_EQ(all.variables.size(), 2u);
  EXPECT_EQ(all.variables[0].name, "z_500");
  EXPECT_EQ(all.variables[1].name, "z_850");
  EXPECT_EQ(std::get<LatLonGrid>(all.grid).lon(), (std::vector<double>{0, 90, 180, 270}));
  EXPECT_EQ(std::get<LatLonGrid>(all.grid).lat(), (std::vector<double>{-30, 30}));
  ASSERT_EQ(all.data.sizes(), (std::vector<int64_t>{3, 2, 8}));
  // stored number of (x, lev, y, t) is 12 x + 6 lev + 3 y + t
  const float at_x3_lev1_y1_t2 = (12 * 3 + 6 + 3 + 2) * 0.5f + 100;
  EXPECT_EQ(all.data[2][1][1 * 4 + 3].item<float>(), at_x3_lev1_y1_t2);
  EXPECT_TRUE(std::isnan(all.data[2][1][0 * 4 + 1].item<float>()));
  EXPECT_EQ(all.data.isnan().sum().item<int64_t>(), 1);

  const auto day = [](int d) { return parse_time("2000-01-01") + d * 86400; };
  const Fields some =
      read_fields(folder / "f.nc", {.variables = {"z_850"}, .times = {{day(0), day(3)}}});
  EXPECT_EQ(some.times, (std::vector<int64_t>{day(0), day(3)}));
  EXPECT_TRUE(identical(some.data[1][0], all.data[2][1]));
  EXPECT_TRUE(identical(some.data[0][0], all.data[0][1]));
}

// Coordinates may be packed as well, and attributes of any case.
TEST(FieldsFile, PackingOfEveryVariable) {
  const TemporaryFolder folder;
  const auto write = [&](const char* time_units, int64_t times) {
    halcyon::write_netcdf(folder / "p.nc", [&](NetcdfWriter& file) {
      const auto packed = [&](const std::string& name, const std::vector<std::string>& dimensions,
                              const std::string& units, double scale, double offset,
                              const at::Tensor& stored) {
        file.variable(name, at::kShort, dimensions, {.fill = -32767});
        file.attribute(name, "missing_value", std::vector<double>{-32767});
        if (!units.empty()) file.attribute(name, "units", units);
        file.attribute(name, "scale_factor", std::vector<double>{scale});
        file.attribute(name, "add_offset", std::vector<double>{offset});
        file.write(name, stored.to(at::kShort));
      };
      file.dimension("time", times);
      file.dimension("lat", 2);
      file.dimension("lon", 3);
      packed("time", {"time"}, time_units, 0.25, 1, at::arange(times));
      file.attribute("time", "calendar", "Gregorian");
      packed("lat", {"lat"}, "degrees_north", 0.5, 30, at::tensor({0, 20}));
      packed("lon", {"lon"}, "degrees_east", 10, 200, at::tensor({0, 1, 2}));
      file.variable("t", at::kFloat, {"time", "lat", "lon"});
      file.attribute("t", "missing_value", std::vector<double>{1e20});
      at::Tensor values = at::arange(times * 6, at::kFloat).view({times, 2, 3});
      values[0][1][1] = 1e20F;
      file.write("t", values);
    });
    return read_fields(folder / "p.nc");
  };
  const Fields fields = write("Days Since 2000-1-1T00:00Z", 2);
  EXPECT_EQ(fields.times, (std::vector<int64_t>{parse_time("2000-01-02T00:00:00"),
                                                parse_time("2000-01-02T06:00:00")}));
  EXPECT_EQ(std::get<LatLonGrid>(fields.grid).lat(), (std::vector<double>{30, 40}));
  EXPECT_EQ(std::get<LatLonGrid>(fields.grid).lon(), (std::vector<double>{200, 210, 220}));
  EXPECT_TRUE(fields.data[0][0][4].isnan().item<bool>());
  EXPECT_EQ(fields.data.isnan().sum().item<int64_t>(), 1);
  expect_error([&] { write("", 2); }, ErrorKind::input, "time has no units");
  EXPECT_TRUE(write("", 1).is_static());
}

TEST(FieldsFile, ErrorsNameTheCause) {
  const TemporaryFolder folder;
  write_foreign(folder / "f.nc");
  const auto path = folder / "f.nc";
  expect_error([&] { read_fields(path, {.variables = {}, .times = {{parse_time("2000-01-03")}}}); },
               ErrorKind::input, "the nearest are 2000-01-02T00:00:00Z and 2000-01-04T00:00:00Z");
  expect_error([&] { read_fields(path, {.variables = {"q"}, .times = {}}); }, ErrorKind::input,
               "q");
  expect_error([&] { read_fields(path, {.variables = {"bounds"}, .times = {}}); }, ErrorKind::input,
               "latitude and longitude dimensions or a HEALPix grid mapping");
  expect_error([&] { read_fields(folder / "none.nc"); }, ErrorKind::input, "none.nc");
  write_text(folder / "text.nc", "not a netcdf file at all");
  expect_error([&] { read_fields(folder / "text.nc"); }, ErrorKind::input, "text.nc");

  Fields fields = some_fields(LatLonGrid({0, 1}, {10, 20, 30}));
  expect_error([&] { write_fields(folder / "no" / "x.nc", fields); }, ErrorKind::output, "x.nc");
  fields.variables[1].name = "time";
  expect_error([&] { write_fields(folder / "x.nc", fields); }, ErrorKind::argument, "\"time\"");
  EXPECT_FALSE(std::filesystem::exists(folder / "x.nc"));
}

TEST(FieldsFile, RealFiles) {
  HALCYON_NEEDS_SHARED();
  const auto data = test::shared_dir() / "data";
  const Fields air = read_fields(data / "ncep_air_namerica_6h_2013_2014/air_temperature.nc");
  ASSERT_EQ(air.data.sizes(), (std::vector<int64_t>{2920, 1, 1325}));
  EXPECT_EQ(air.variables[0].name, "air");
  EXPECT_EQ(air.variables[0].units, "degK");
  EXPECT_EQ(format_time(air.times.front()), "2013-01-01T00:00:00Z");
  EXPECT_EQ(format_time(air.times.back()), "2014-12-31T18:00:00Z");
  EXPECT_EQ(format_time(air.times[1234]), "2013-11-05T12:00:00Z");
  EXPECT_FLOAT_EQ(air.data[0][0][0].item<float>(), 241.2f);
  EXPECT_FLOAT_EQ(air.data[1234][0][10 * 53 + 20].item<float>(), 262.2f);
  EXPECT_FLOAT_EQ(air.data[2919][0][1324].item<float>(), 295.69f);

  const Fields relief = read_fields(data / "static/etopo60.cdf");
  EXPECT_TRUE(relief.is_static());
  ASSERT_EQ(relief.data.sizes(), (std::vector<int64_t>{1, 1, 180 * 360}));
  EXPECT_FLOAT_EQ(relief.data[0][0][120 * 360 + 250].item<float>(), 24.444445f);
  EXPECT_EQ(size_of(read_fields(data / "static/etopo20.cdf").grid), 540 * 1080);
  const Fields mask =
      read_fields(data / "static/landsea.nc", {.variables = {"LSMASK"}, .times = {}});
  EXPECT_EQ(mask.data[0][0][120 * 360 + 250].item<float>(), 1);
}

}  // namespace
}  // namespace halcyon::state
