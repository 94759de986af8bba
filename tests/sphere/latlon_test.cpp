// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/latlon.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/sphere/errors.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using test::expect_error;
using Values = std::vector<double>;

TEST(LatLonGrid, RegularWithPoles) {
  const auto grid = LatLonGrid::regular(5, 4);
  EXPECT_EQ(grid.lat(), Values({90, 45, 0, -45, -90}));
  EXPECT_EQ(grid.lon(), Values({0, 90, 180, 270}));
  EXPECT_EQ(grid.lat_bounds(), Values({90, 67.5, 22.5, -22.5, -67.5, -90}));
  EXPECT_EQ(grid.lon_bounds(), Values({-45, 45, 135, 225, 315}));
  EXPECT_TRUE(grid.periodic());
  EXPECT_EQ(grid.size(), 20);
  EXPECT_NEAR(grid.areas().sum().item<double>(), 4 * M_PI, 1e-13);
  EXPECT_NEAR(grid.areas()[0][1].item<double>(), M_PI / 2 * (1 - std::sin(67.5 * M_PI / 180)),
              1e-14);
}

TEST(LatLonGrid, RegularWithoutPoles) {
  const auto grid = LatLonGrid::regular(4, 8, false);
  EXPECT_EQ(grid.lat(), Values({67.5, 22.5, -22.5, -67.5}));
  EXPECT_EQ(grid.lat_bounds(), Values({90, 45, 0, -45, -90}));
  EXPECT_NEAR(grid.areas().sum().item<double>(), 4 * M_PI, 1e-13);
}

TEST(LatLonGrid, Gaussian) {
  // the latitudes of N2 and the first of N32, as ECMWF publishes them
  const auto small = LatLonGrid::gaussian(2);
  EXPECT_NEAR(small.lat()[0], 59.444408, 1e-6);
  EXPECT_NEAR(small.lat()[1], 19.875719, 1e-6);
  EXPECT_NEAR(LatLonGrid::gaussian(32).lat()[0], 87.8638, 1e-4);
  const auto grid = LatLonGrid::gaussian(160);
  EXPECT_NEAR(grid.lat()[0], 89.5701, 1e-4);
  EXPECT_EQ(grid.lat()[3], -grid.lat()[316]);
  EXPECT_EQ(grid.columns(), 640);
  EXPECT_EQ(grid.lat_bounds().front(), 90);
  EXPECT_NEAR(grid.areas().sum().item<double>(), 4 * M_PI, 1e-12);
}

TEST(LatLonGrid, AxesRunEitherWay) {
  const LatLonGrid grid({-1, 0, 1.5}, {20, 15, 10});
  EXPECT_FALSE(grid.periodic());
  EXPECT_EQ(grid.lat_bounds(), Values({-1.5, -0.5, 0.75, 2.25}));
  EXPECT_EQ(grid.lon_bounds(), Values({22.5, 17.5, 12.5, 7.5}));
  EXPECT_GT(grid.areas().min().item<double>(), 0);
  const auto [lon, lat] = grid.points();
  EXPECT_EQ(lon.size(0), 9);
  EXPECT_EQ(lon[4].item<double>(), 15);
  EXPECT_EQ(lat[6].item<double>(), 1.5);
}

TEST(LatLonGrid, LongitudesMayCrossTheDateLine) {
  const LatLonGrid pacific({0, 10}, {170, 175, 180, -175, -170});
  EXPECT_EQ(pacific.unwrapped_lon(), Values({170, 175, 180, 185, 190}));
  EXPECT_FALSE(pacific.periodic());
  const LatLonGrid all({0, 10}, {0, 90, 180, -90});
  EXPECT_TRUE(all.periodic());
  EXPECT_EQ(all.lon_bounds(), Values({-45, 45, 135, 225, 315}));
}

TEST(LatLonGrid, ARepeatedMeridianSharesItsCell) {
  const LatLonGrid grid({0, 10}, {0, 90, 180, 270, 360});
  EXPECT_FALSE(grid.periodic());
  EXPECT_EQ(grid.lon_bounds(), Values({0, 45, 135, 225, 315, 360}));
}

TEST(LatLonGrid, RegionalGridsEndHalfACellOutside) {
  const LatLonGrid grid({80, 70, 60}, {0, 1, 2});
  EXPECT_EQ(grid.lat_bounds(), Values({85, 75, 65, 55}));
  const LatLonGrid point({50}, {7});
  EXPECT_EQ(point.size(), 1);
  expect_error([&] { point.lat_bounds(); }, "two rows or more");
  expect_error([&] { point.areas(); }, "two rows or more");
}

TEST(LatLonGrid, RefusesBadAxes) {
  expect_error([] { LatLonGrid({}, {1}); }, "at least one latitude");
  expect_error([] { LatLonGrid({0, 1}, {}); }, "at least one longitude");
  expect_error([] { LatLonGrid({0, 91}, {0, 1}); }, "got 91");
  expect_error([] { LatLonGrid({0, NAN}, {0, 1}); }, "got nan");
  expect_error([] { LatLonGrid({0, 1, 1}, {0, 1}); }, "turn or a repeat");
  expect_error([] { LatLonGrid({0, 2, 1}, {0, 1}); }, "turn or a repeat");
  expect_error([] { LatLonGrid({0, 1}, {0, 180, 90}); }, "longitudes");
  expect_error([] { LatLonGrid({0, 1}, {0, 200, 400}); }, "more than 360");
  expect_error([] { LatLonGrid::regular(1, 4); }, "2 x 2");
  expect_error([] { LatLonGrid::gaussian(0); }, "1..8192");
}

}  // namespace
}  // namespace halcyon
