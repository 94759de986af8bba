// SPDX-License-Identifier: Apache-2.0
// HEALPix fields in NetCDF: what we write, and what others write.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "halcyon/base/error.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/time.h"
#include "halcyon/sphere/healpix.h"
#include "halcyon/state/read_fields.h"
#include "halcyon/state/write_fields.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::state {
namespace {

using healpix::Order;
using test::identical;
using test::near;
using test::TemporaryFolder;

at::Tensor longs(const std::vector<int64_t>& v) {
  return at::tensor(v, at::kLong);
}

TEST(HealpixFile, RoundTrip) {
  const TemporaryFolder folder;
  for (const Region& region :
       {Region::of_pixels(3, std::vector<int64_t>{2, 3, 77, 400, 767}), Region::global(2)}) {
    at::Tensor data = at::arange(4 * region.size(), at::kFloat).view({2, 2, -1}) / 7;
    data[1][0][region.size() - 1] = std::numeric_limits<float>::quiet_NaN();
    const Fields fields{{{"t2m", "air_temperature", "2 m temperature", "K"}, {"msl", "", "", "Pa"}},
                        region,
                        {parse_time("2014-07-01T00"), parse_time("2014-07-01T06")},
                        data};
    write_fields(folder / "r.nc", fields);
    const Fields back = read_fields(folder / "r.nc");
    EXPECT_EQ(back.variables, fields.variables);
    EXPECT_EQ(back.times, fields.times);
    EXPECT_TRUE(back.grid == fields.grid);
    EXPECT_TRUE(identical(back.data, fields.data));
  }
}

// The grid mapping of CF-1.13 with the numbers that every tool knows.
TEST(HealpixFile, SaysWhatGridItHas) {
  const TemporaryFolder folder;
  const auto region = Region::of_pixels(3, std::vector<int64_t>{2, 3, 77, 400, 767});
  write_fields(folder / "r.nc",
               {{{"msl", "", "", "Pa"}}, region, {}, at::arange(5, at::kFloat).view({1, 1, 5})});
  const NetcdfReader file(folder / "r.nc");
  EXPECT_EQ(file.text("", "Conventions"), "CF-1.13");
  EXPECT_EQ(file.text("msl", "grid_mapping"), "crs");
  EXPECT_EQ(file.text("msl", "coordinates"), "lat lon");
  EXPECT_EQ(file.text("crs", "grid_mapping_name"), "healpix");
  EXPECT_EQ(file.text("crs", "indexing_scheme"), "nested");
  EXPECT_EQ(file.numbers("crs", "refinement_level"), std::vector<double>{3});
  EXPECT_EQ(file.numbers("crs", "healpix_nside"), std::vector<double>{8});
  EXPECT_EQ(file.text("crs", "healpix_order"), "nest");
  EXPECT_TRUE(file.variable("crs").dimensions.empty());
  EXPECT_EQ(file.text("pixel", "standard_name"), "healpix_index");
  EXPECT_EQ(file.variable("pixel").dtype, at::kInt);
  // ascending, with the values and the centres that belong to them
  const auto pixel = file.read("pixel").to(at::kLong);
  const auto nest = healpix::convert(3, region.pixels(), Order::pad_xy, Order::nest);
  EXPECT_TRUE(identical(pixel, std::get<0>(nest.sort())));
  EXPECT_TRUE(identical(nest.index_select(0, file.read("msl").to(at::kLong)), pixel));
  const auto [lon, lat] = healpix::pix2ang(3, pixel, Order::nest);
  EXPECT_TRUE(identical(file.read("lon"), lon));
  EXPECT_TRUE(identical(file.read("lat"), lat));
}

// A file of level 1 as others write it: t(time, cell), the value being the pixel's nested number
// plus 100 a time.
struct Foreign {
  at::Tensor nest;  // of the cells as they stand in the file
  Order order = Order::nest;
  bool numbered = true;
  std::string index = "cell", mapping = "crs";
  std::function<void(NetcdfWriter&)> describe = [](NetcdfWriter& file) {
    file.attribute("crs", "indexing_scheme", "nested");
    file.attribute("crs", "refinement_level", std::vector<int32_t>{1});
    file.attribute("cell", "standard_name", "healpix_index");
  };

  void write(const std::filesystem::path& path) const {
    halcyon::write_netcdf(path, [&](NetcdfWriter& file) {
      file.dimension("time", 2);
      file.dimension("cell", nest.numel());
      file.variable("time", at::kDouble, {"time"});
      file.attribute("time", "units", "hours since 2020-01-01");
      file.write("time", at::tensor({0.0, 6.0}, at::kDouble));
      file.variable("crs", at::kInt, {});
      file.attribute("crs", "grid_mapping_name", "healpix");
      if (numbered) {
        file.variable(index, at::kLong, {"cell"});
        file.write(index, healpix::convert(1, nest, Order::nest, order));
      }
      file.variable("t", at::kFloat, {"time", "cell"});
      file.attribute("t", "grid_mapping", mapping);
      describe(file);
      const auto values = nest.to(at::kFloat);
      file.write("t", at::stack({values, values + 100}));
    });
  }
};

// Every value stands at the place of its pixel.
void expect_right(const Fields& fields, int64_t pixels) {
  const auto& region = std::get<Region>(fields.grid);
  EXPECT_EQ(region.level(), 1);
  ASSERT_EQ(region.size(), pixels);
  ASSERT_EQ(fields.variables.size(), 1u);
  EXPECT_EQ(fields.variables[0].name, "t");
  const auto nest = healpix::convert(1, region.pixels(), Order::pad_xy, Order::nest).to(at::kFloat);
  EXPECT_TRUE(identical(fields.data.select(1, 0), at::stack({nest, nest + 100})));
}

TEST(HealpixFile, ReadsTheGridMappingOfOthers) {
  const TemporaryFolder folder;
  const auto path = folder / "f.nc";
  const auto all = at::arange(48, at::kLong), some = longs({17, 3, 44, 30, 2});
  const auto ring = healpix::convert(1, all, Order::ring, Order::nest);  // cells in ring order
  const auto named = [](const std::string& scheme, const std::string& index) {
    return [=](NetcdfWriter& file) {
      file.attribute("crs", "indexing_scheme", scheme);
      file.attribute("crs", "refinement_level", std::vector<int32_t>{1});
      if (!index.empty()) file.attribute(index, "standard_name", "healpix_index");
    };
  };
  Foreign{all}.write(path);
  expect_right(read_fields(path), 48);
  // without numbers all the sphere is meant, in order
  Foreign{.nest = all, .numbered = false, .describe = named("nested", "")}.write(path);
  expect_right(read_fields(path), 48);
  Foreign{.nest = ring, .numbered = false, .describe = named("ring", "")}.write(path);
  expect_right(read_fields(path), 48);
  // a part of it, in any order; the mapping with its coordinates; an auxiliary coordinate
  Foreign{some}.write(path);
  expect_right(read_fields(path), 5);
  Foreign{.nest = some,
          .order = Order::ring,
          .index = "number",
          .mapping = "crs: number",
          .describe = named("ring", "number")}
      .write(path);
  expect_right(read_fields(path), 5);
  expect_right(read_fields(path, {.variables = {"t"}, .times = {}}), 5);
}

TEST(HealpixFile, ReadsWhatWasWrittenBeforeTheConvention) {
  const TemporaryFolder folder;
  const auto path = folder / "f.nc";
  const auto old = [](NetcdfWriter& file) {
    file.attribute("crs", "healpix_nside", std::vector<int32_t>{2});
    file.attribute("crs", "healpix_order", "nest");
    file.attribute("cell", "grid_mapping", "crs");
  };
  Foreign{.nest = longs({17, 3, 44}), .describe = old}.write(path);
  expect_right(read_fields(path), 3);
  Foreign{.nest = at::arange(48, at::kLong).flip(0), .describe = old}.write(path);
  expect_right(read_fields(path), 48);
  // Halcyon's own: the coordinate describes itself, in the order pad_xy
  const auto padxy = longs({2, 5, 40});
  Foreign ours{.nest = healpix::convert(1, padxy, Order::pad_xy, Order::nest),
               .order = Order::pad_xy,
               .mapping = "",
               .describe = [](NetcdfWriter& file) {
                 file.attribute("cell", "healpix_level", std::vector<double>{1});
                 file.attribute("cell", "healpix_nside", std::vector<double>{2});
                 file.attribute("cell", "healpix_order", "pad_xy");
               }};
  ours.write(path);
  expect_right(read_fields(path), 3);
}

TEST(HealpixFile, RefusesWhatCannotBeTold) {
  const TemporaryFolder folder;
  const auto path = folder / "f.nc";
  const auto all = at::arange(48, at::kLong);
  const auto expect_input = [&](const std::string& part) {
    try {
      read_fields(path);
      ADD_FAILURE() << "expected an error with: " << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::input);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("f.nc"), std::string::npos) << error.what();
    }
  };
  struct Case {
    const char* scheme;
    int32_t level;
    const char* expected;
  };
  for (const Case& one :
       {Case{"nuniq", 1, "indexing_scheme of crs to be nested or ring, got \"nuniq\""},
        Case{"nested", 30, "refinement_level 0 to 29 of crs, got 30"},
        Case{"nested", 0, "expected pixels in 0..11 at level 0"}}) {
    Foreign{.nest = all,
            .describe =
                [&](NetcdfWriter& file) {
                  file.attribute("crs", "indexing_scheme", one.scheme);
                  file.attribute("crs", "refinement_level", std::vector<int32_t>{one.level});
                  file.attribute("cell", "standard_name", "healpix_index");
                }}
        .write(path);
    expect_input(one.expected);
  }
  Foreign{longs({3, 17, 3})}.write(path);
  expect_input("without repeats");
  // no level, no order, two that differ, fewer cells than the sphere and no numbers
  Foreign{
      .nest = all,
      .describe = [](NetcdfWriter& file) { file.attribute("crs", "indexing_scheme", "nested"); }}
      .write(path);
  expect_input("expected refinement_level of the grid mapping crs");
  Foreign{.nest = all,
          .describe =
              [](NetcdfWriter& file) {
                file.attribute("crs", "refinement_level", std::vector<int32_t>{1});
              }}
      .write(path);
  expect_input("expected indexing_scheme (nested or ring) of the grid mapping crs");
  Foreign{.nest = all,
          .describe =
              [](NetcdfWriter& file) {
                file.attribute("crs", "indexing_scheme", "nested");
                file.attribute("crs", "refinement_level", std::vector<int32_t>{1});
                file.attribute("crs", "healpix_nside", std::vector<int32_t>{4});
              }}
      .write(path);
  expect_input("expected one level, got 1 by refinement_level and 2 by healpix_nside");
  Foreign{.nest = longs({1, 2}),
          .numbered = false,
          .describe =
              [](NetcdfWriter& file) {
                file.attribute("crs", "indexing_scheme", "nested");
                file.attribute("crs", "refinement_level", std::vector<int32_t>{1});
              }}
      .write(path);
  expect_input("all 48 pixels of level 1");
}

}  // namespace
}  // namespace halcyon::state
