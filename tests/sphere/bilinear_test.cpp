// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/sphere.h"
#include "tests/sphere/errors.h"
#include "tests/sphere/fields.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using test::expect_error;
using test::near;
using test::random_points;
using test::smooth;

at::Tensor doubles(const std::vector<double>& v) {
  return at::tensor(v, at::kDouble);
}

double worst(const SparseMatrix& m, const at::Tensor& field, const at::Tensor& expected) {
  return (m.apply(field) - expected).abs().max().item<double>();
}

TEST(Bilinear, LatLonLiterals) {
  // rows 10, 0; columns 350, 0, 10 (over the meridian)
  const LatLonGrid grid({10, 0}, {350, 0, 10});
  const auto field = doubles({1, 2, 3, 10, 20, 30});
  const auto lon = doubles({350, 355, 2.5, 369, -7.5, 0, 10});
  const auto lat = doubles({10, 10, 5, 0, 2, 0, 10});
  EXPECT_TRUE(near(bilinear_to_points(grid, lon, lat).apply(field),
                   doubles({1, 1.5, (2.25 + 22.5) / 2, 29, 1.25 * 0.2 + 12.5 * 0.8, 20, 3}),
                   1e-14));
}

TEST(Bilinear, LatLonIsExactForBilinearFields) {
  at::manual_seed(1);
  const LatLonGrid grid({-10, -4, 1, 3, 20}, {60, 55, 40, 38, 20});  // uneven, one axis falling
  const auto [lon, lat] = grid.points();
  const auto f = [](const at::Tensor& x, const at::Tensor& y) { return 3 + 2 * x - y + x * y; };
  const auto x = at::rand({500}, at::kDouble) * 40 + 20, y = at::rand({500}, at::kDouble) * 30 - 10;
  EXPECT_TRUE(near(bilinear_to_points(grid, x, y).apply(f(lon, lat)), f(x, y), 1e-14));
  // the same a turn further
  EXPECT_TRUE(near(bilinear_to_points(grid, x - 360, y).apply(f(lon, lat)), f(x, y), 1e-13));
}

TEST(Bilinear, LatLonBeyondTheEdge) {
  const LatLonGrid grid({0, 10}, {0, 10, 20});
  const auto field = doubles({0, 1, 2, 10, 11, 12});
  // half a cell outside takes the edge, farther is NaN
  EXPECT_TRUE(near(bilinear_to_points(grid, doubles({24, 26, -4, 356, 354, 10, 10, 24}),
                                      doubles({5, 5, 0, 0, 0, 14, 16, -4}))
                       .apply(field),
                   doubles({7, NAN, 0, 0, NAN, 11, NAN, 2}), 1e-14));
  const LatLonGrid point({50}, {7});
  EXPECT_TRUE(
      near(bilinear_to_points(point, doubles({7, 7, 8}), doubles({50, 51, 50})).apply(doubles({3})),
           doubles({3, NAN, NAN}), 0));
}

TEST(Bilinear, LatLonAtThePoles) {
  const auto grid = LatLonGrid::regular(4, 8, false);  // rows at +-67.5, +-22.5
  auto field = at::zeros({4, 8}, at::kDouble);
  field[0] = at::arange(8, at::kDouble);
  const auto y = bilinear_to_points(grid, doubles({0, 77, 45, 90}), doubles({90, 90, 67.5, 78.75}))
                     .apply(field.flatten());
  EXPECT_TRUE(near(y, doubles({3.5, 3.5, 1, (2 + 3.5) / 2}), 1e-14));
  // a grid with rows on the poles uses them
  const auto poles = LatLonGrid::regular(3, 4);
  EXPECT_TRUE(near(bilinear_to_points(poles, doubles({45}), doubles({90}))
                       .apply(doubles({1, 3, 5, 7, 0, 0, 0, 0, 0, 0, 0, 0})),
                   doubles({2}), 1e-14));
}

TEST(Bilinear, LatLonConvergesWithTheSquareOfTheSpacing) {
  at::manual_seed(2);
  const auto [lon, lat] = random_points(4000);
  double before = 0;
  for (const int64_t rows : {19, 37, 73, 145}) {
    const Grid grid = LatLonGrid::regular(rows, 2 * (rows - 1));
    const double error = worst(bilinear_to_points(std::get<LatLonGrid>(grid), lon, lat),
                               smooth(grid), smooth(lon, lat));
    if (before > 0) {
      EXPECT_NEAR(before / error, 4, 0.5) << rows;
    }
    before = error;
  }
  EXPECT_LT(before, 3e-4);
  const Grid gaussian = LatLonGrid::gaussian(64);
  EXPECT_LT(worst(bilinear_to_points(std::get<LatLonGrid>(gaussian), lon, lat), smooth(gaussian),
                  smooth(lon, lat)),
            5e-3);
}

TEST(Bilinear, HealpixKeepsItsOwnCentres) {
  for (const int level : {0, 1, 4}) {
    const auto region = Region::global(level);
    const auto field = at::arange(region.size(), at::kDouble);
    EXPECT_TRUE(near(bilinear(region, region).apply(field), field, 1e-12)) << level;
  }
}

TEST(Bilinear, HealpixLiterals) {
  // level 0, rings at z = 2/3, 0, -2/3; order nest = pad_xy. At the equator and lon 30 a third of
  // the way from pixel 4 (lon 0) to pixel 5 (lon 90); at the poles the mean of four.
  const auto region = Region::global(0);
  const auto field = doubles({0, 1, 2, 3, 10, 20, 30, 40, 100, 200, 300, 400});
  EXPECT_TRUE(
      near(bilinear_to_points(region, doubles({30, 123, 123, 0, -30}), doubles({0, 90, -90, 0, 0}))
               .apply(field),
           doubles({40.0 / 3, 1.5, 250, 10, 20}), 1e-13));
  // between the rings linear in colatitude: half-way from the equator to 41.81 north on lon 45
  const double half = std::asin(2.0 / 3) / 2 * 180 / M_PI;
  EXPECT_TRUE(near(bilinear_to_points(region, doubles({45}), doubles({half})).apply(field),
                   doubles({(0 + 15) / 2.0}), 1e-13));
}

TEST(Bilinear, HealpixWeightsArePositiveAndSumToOne) {
  at::manual_seed(3);
  auto [lon, lat] = random_points(5000);
  lat = at::cat({lat, doubles({90, -90, 89.99999, -89.99999, 0})});
  lon = at::cat({lon, doubles({0, 12, 359.9999, 180, 360})});
  for (const int level : {0, 1, 2, 7, 12}) {
    const auto m = bilinear_to_points(Region::global(level), lon, lat);
    const auto& w = m.data().weight;
    EXPECT_GE(*std::min_element(w.begin(), w.end()), 0);
    EXPECT_TRUE(near(m.apply(at::ones({m.columns()})), at::ones({lon.numel()}), 1e-6));
  }
}

// Second order, but first order at the poles, where the rings have so few pixels.
TEST(Bilinear, HealpixConvergesWithTheSquareOfThePixel) {
  at::manual_seed(4);
  const auto [lon, lat] = random_points(20000);
  const auto low = lat.abs() < 75;
  double all_before = 0, low_before = 0, mean_before = 0;
  for (const int level : {3, 4, 5, 6}) {
    SCOPED_TRACE(level);
    const auto region = Region::global(level);
    const auto error =
        (bilinear_to_points(region, lon, lat).apply(smooth(region)) - smooth(lon, lat)).abs();
    const double worst_all = error.max().item<double>(), mean = error.mean().item<double>();
    const double worst_low = error.index({low}).max().item<double>();
    if (level > 3) {
      EXPECT_NEAR(low_before / worst_low, 4, 0.5);
      EXPECT_NEAR(mean_before / mean, 4, 0.4);
      EXPECT_GT(all_before / worst_all, 1.8);
    }
    all_before = worst_all;
    low_before = worst_low;
    mean_before = mean;
  }
  EXPECT_LT(low_before, 6e-4);
  EXPECT_LT(mean_before, 1e-4);
  EXPECT_LT(all_before, 5e-3);
}

TEST(Bilinear, HealpixRegionUsesWhatItHas) {
  at::manual_seed(5);
  const Box box = {-12, 31, 30, 62};
  const auto region = Region::touching(5, box);
  const Grid grid = region;
  const auto lon = at::rand({2000}, at::kDouble) * 43 - 12,
             lat = at::rand({2000}, at::kDouble) * 32 + 30;
  const auto inside = bilinear_to_points(region, lon, lat);
  EXPECT_LT(worst(inside, smooth(grid), smooth(lon, lat)), 0.03);  // no NaN, no far value
  // far inside the region it is the global answer
  const auto global =
      bilinear_to_points(Region::global(5), lon, lat).apply(smooth(Grid(Region::global(5))));
  const auto deep = (lon > -5) & (lon < 24) & (lat > 36) & (lat < 56);
  EXPECT_TRUE(near(inside.apply(smooth(grid)).index({deep}), global.index({deep}), 1e-13));
  // a single pixel answers on its own area only
  const auto one = Region::of_pixels(5, {700});
  const auto [x, y] = one.centres();
  const auto far = bilinear_to_points(one, at::cat({x, x + 60}), at::cat({y, y}));
  EXPECT_TRUE(near(far.apply(doubles({9})), doubles({9, NAN}), 0));
}

TEST(Bilinear, FromGridToGrid) {
  const Grid latlon = LatLonGrid::regular(91, 180),
             region = Region::touching(5, {100, 200, -40, 80});
  EXPECT_LT(worst(bilinear(latlon, region), smooth(latlon), smooth(region)), 1.5e-3);
  const Grid global = Region::global(6), target = LatLonGrid::gaussian(32);
  EXPECT_LT(worst(bilinear(global, target), smooth(global), smooth(target)), 2e-3);
}

TEST(Bilinear, RefusesBadPoints) {
  const auto region = Region::global(1);
  expect_error([&] { bilinear_to_points(region, doubles({1, 2}), doubles({1})); }, "one length");
  expect_error([&] { bilinear_to_points(region, doubles({1}), doubles({91})); }, "lat 91");
  expect_error([&] { bilinear_to_points(region, doubles({NAN}), doubles({1})); }, "nan");
  expect_error(
      [&] { bilinear_to_points(LatLonGrid::regular(3, 4), at::tensor({1}), at::tensor({1})); },
      "floating-point");
}

}  // namespace
}  // namespace halcyon
