// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <fmt/format.h>
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
using test::smooth;

at::Tensor areas_of(const Grid& grid) {
  if (const auto* latlon = std::get_if<LatLonGrid>(&grid)) return latlon->areas().flatten();
  const auto& region = std::get<Region>(grid);
  const double each = 4 * M_PI / static_cast<double>(healpix::npix(region.level()));
  return at::full({region.size()}, each, at::kDouble);
}

double integral(const Grid& grid, const at::Tensor& field) {
  return (areas_of(grid) * field).sum().item<double>();
}

std::vector<Grid> global_grids() {
  const auto gaussian = LatLonGrid::gaussian(16);
  auto lat = gaussian.lat(), lon = gaussian.lon();
  std::reverse(lat.begin(), lat.end());
  for (double& v : lon) v = v >= 180 ? v - 360 : v;
  std::rotate(lon.begin(), lon.begin() + 32, lon.end());  // -180 .. 174.4
  std::reverse(lon.begin(), lon.end());
  return {Region::global(0),
          Region::global(3),
          Region::global(5),
          LatLonGrid::regular(37, 72),
          LatLonGrid::regular(30, 50, false),
          gaussian,
          LatLonGrid(lat, lon),
          LatLonGrid({-90, -80, -35, 0, 1, 60, 90}, {-10, 0, 40, 41, 160, 250})};
}

TEST(Conservative, KeepsTheGlobalIntegralAndConstants) {
  at::manual_seed(1);
  for (const Grid& from : global_grids()) {
    const auto field = at::randn({size_of(from)}, at::kDouble) + 1;
    const double whole = integral(from, field);
    for (const Grid& to : global_grids()) {
      const auto m = conservative(from, to);
      SCOPED_TRACE(fmt::format("{} -> {} cells", m.columns(), m.rows()));
      ASSERT_EQ(m.columns(), size_of(from));
      ASSERT_EQ(m.rows(), size_of(to));
      EXPECT_NEAR(integral(to, m.apply(field)), whole, 1e-11);
      EXPECT_TRUE(near(m.apply(at::ones_like(field)), at::ones({m.rows()}, at::kDouble), 1e-13));
      // a cell's weight times its area, added up, is the area of the input
      EXPECT_TRUE(near(m.adjoint(areas_of(to)), areas_of(from), 1e-10));
      const double single = integral(to, m.apply(field.to(at::kFloat)).to(at::kDouble));
      EXPECT_NEAR(single, whole, 1e-6 * std::abs(whole));
    }
  }
}

TEST(Conservative, SharesAgreeWithCounting) {
  at::manual_seed(2);
  // a million points evenly over the sphere, each counted in its pixel and in its cell
  const auto [lon, lat] = test::random_points(1000000);
  const auto grid = LatLonGrid::regular(7, 9);
  const auto region = Region::global(1);
  const auto pix = healpix::ang2pix(1, lon, lat);
  const auto row = ((90 - lat) / 30).round().to(at::kLong);
  const auto column = (lon.remainder(360) / 40).round().to(at::kLong).remainder(9);
  const auto counts = at::bincount(pix * 63 + row * 9 + column, {}, 48 * 63).view({48, 63});
  const auto expected = counts.to(at::kDouble) * (48 / 1e6);

  const auto matrix = conservative(grid, region);
  const auto& m = matrix.data();
  auto weights = at::zeros({48, 63}, at::kDouble);
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t k = m.row_start[r]; k < m.row_start[r + 1]; ++k) {
      weights[r][m.column[k]] = m.weight[k];
    }
  }
  // five standard deviations of a count of 1e6 / 48 points
  EXPECT_TRUE(near(weights, expected, 5 / std::sqrt(1e6 / 48)));
  EXPECT_EQ(weights.gt(1e-3).logical_and(expected == 0).sum().item<int64_t>(), 0);
  EXPECT_EQ(expected.gt(0).logical_and(weights == 0).sum().item<int64_t>(), 0);
}

TEST(Conservative, ConvergesWithTheSpacing) {
  // means over pixels against values at their centres; at the poles those are not the middle, so
  // the average error
  double before = 0;
  for (const int level : {3, 4, 5}) {
    const Grid from = Region::global(level + 2), to = Region::global(level);
    const auto error = (conservative(from, to).apply(smooth(from)) - smooth(to)).abs().mean();
    if (before > 0) {
      EXPECT_NEAR(before / error.item<double>(), 4, 0.4);
    }
    before = error.item<double>();
  }
  // point values standing for the means of ever smaller cells
  before = 0;
  for (const int64_t rows : {91, 181, 361}) {
    const Grid from = LatLonGrid::regular(rows, 2 * (rows - 1)), to = Region::global(3);
    const auto fine = smooth(Grid(Region::global(7)));
    const auto means = conservative(Region::global(7), to).apply(fine);
    const auto error = (conservative(from, to).apply(smooth(from)) - means).abs().max();
    if (before > 0) {
      EXPECT_GT(before / error.item<double>(), 1.8);
    }
    before = error.item<double>();
  }
  EXPECT_LT(before, 1e-3);
}

TEST(Conservative, RegionalGridsAreMeansOverWhatIsCovered) {
  const LatLonGrid grid({50, 45, 40}, {0, 5, 10, 15});
  const Grid region = Region::touching(4, {-2.5, 17.5, 37.5, 52.5});
  const auto to_region = conservative(grid, region);
  EXPECT_TRUE(near(to_region.apply(at::full({12}, 7.0)), at::full({size_of(region)}, 7.0), 1e-6));
  // far away there is nothing
  const auto away = conservative(grid, Region::of_pixels(4, {3000}));
  EXPECT_TRUE(at::isnan(away.apply(at::ones({12}))).all().item<bool>());
  // the region covers the grid, so nothing of a field on the region is lost
  const auto back = conservative(region, grid);
  at::manual_seed(3);
  const auto field = at::rand({12}, at::kDouble);
  EXPECT_EQ(static_cast<int64_t>(to_region.data().column.size()),
            static_cast<int64_t>(back.data().column.size()));
  EXPECT_TRUE(near(back.apply(at::ones({size_of(region)}, at::kDouble)),
                   at::ones({12}, at::kDouble), 1e-13));
}

TEST(Conservative, BetweenLevelsOfHealpix) {
  const auto fine = Region::global(2), coarse = Region::global(1);
  const auto field = at::arange(192, at::kDouble);
  const auto down = conservative(fine, coarse).apply(field);
  EXPECT_TRUE(near(down,
                   field.index_select(0, coarse.children_index(1).flatten()).view({48, 4}).mean(1),
                   1e-14));
  const auto up = conservative(coarse, fine).apply(down);
  EXPECT_TRUE(near(up, down.index_select(0, healpix::parent(2, fine.pixels())), 0));
}

TEST(Conservative, MissingValues) {
  const Grid from = LatLonGrid::regular(19, 36), to = Region::global(2);
  auto field = at::full({19 * 36}, 2.0);
  field.slice(0, 0, 200).fill_(NAN);
  const auto m = conservative(from, to);
  const auto some = m.apply(field, Missing::renormalise);
  const auto none = m.apply(field);
  EXPECT_GT(none.isnan().sum().item<int64_t>(), some.isnan().sum().item<int64_t>());
  EXPECT_GT(some.isnan().sum().item<int64_t>(), 0);
  EXPECT_TRUE(near(some.index({~some.isnan()}),
                   at::full({1}, 2.0).expand({(~some.isnan()).sum().item<int64_t>()}), 1e-6));
}

TEST(Regrid, MethodsByName) {
  const Grid from = LatLonGrid::regular(19, 36), to = Region::global(2);
  EXPECT_EQ(regridder_names(), (std::vector<std::string_view>{"bilinear", "conservative"}));
  EXPECT_EQ(make_regridder("bilinear", from, to).data().weight, bilinear(from, to).data().weight);
  EXPECT_EQ(make_regridder("conservative", from, to).data().weight,
            conservative(from, to).data().weight);
  expect_error([&] { make_regridder("cubic", from, to); },
               "expected the method bilinear or conservative, got \"cubic\"",
               ErrorKind::configuration);
  expect_error([&] { conservative(LatLonGrid({1}, {1, 2}), to); }, "two rows or more");
}

}  // namespace
}  // namespace halcyon
