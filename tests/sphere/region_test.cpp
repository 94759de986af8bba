// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/region.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "halcyon/sphere/healpix.h"
#include "halcyon/sphere/healpix_pixel.h"
#include "tests/sphere/errors.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using test::expect_error;
using test::identical;

at::Tensor longs(const std::vector<int64_t>& v) {
  return at::tensor(v, at::kLong);
}

// The pixels met on a lattice of points over the box and, closer together, along its border.
std::set<int64_t> sampled(int level, const Box& box) {
  std::set<int64_t> found;
  double width = box.east - box.west;
  if (width < 0) width += 360;
  const auto visit = [&](double x, double y) {
    const double lon = box.west + x * width, lat = box.south + y * (box.north - box.south);
    const auto pixel = healpix::detail::pixel_at(level, lon, lat);
    found.insert(healpix::detail::to_padxy(level, pixel));
  };
  for (int i = 0; i <= 400; ++i) {
    for (int j = 0; j <= 400; ++j) visit(i / 400.0, j / 400.0);
  }
  for (int i = 0; i <= 20000; ++i) {
    visit(i / 20000.0, 0);
    visit(i / 20000.0, 1);
    visit(0, i / 20000.0);
    visit(1, i / 20000.0);
  }
  return found;
}

bool contains(const std::set<int64_t>& all, const std::set<int64_t>& some) {
  return std::includes(all.begin(), all.end(), some.begin(), some.end());
}

std::set<int64_t> as_set(const Region& region) {
  const int64_t* p = region.pixels().const_data_ptr<int64_t>();
  return {p, p + region.size()};
}

TEST(Region, Global) {
  const auto region = Region::global(2);
  EXPECT_TRUE(region.is_global());
  EXPECT_EQ(region.size(), 192);
  EXPECT_TRUE(identical(region.pixels(), at::arange(192, at::kLong)));
  EXPECT_TRUE(identical(std::get<1>(region.centres()),
                        std::get<1>(healpix::pix2ang(2, at::arange(192, at::kLong)))));
  EXPECT_TRUE(region.refined(1) == Region::global(3));
  expect_error([] { Region::global(14); }, "0..13, got 14");
}

TEST(Region, TouchingFindsWhatDenseSamplingFinds) {
  const Box boxes[] = {
      {-10, 30, 35, 60},                              // Europe, over lon 0
      {170, -160, -20, 15},                           // over the date line
      {0, 360, 60, 90},                               // a cap
      {-180, 180, -90, -75},                          // a cap
      {10, 20, 85, 90},                               // to the pole
      {100.3, 100.4, 41.0, 42.5},                     // thinner than a pixel, over the belt's edge
      {44.9, 45.1, -90, 90},                          // a meridian
      {0, 360, 0.1, 0.2},                             // a parallel
      {200, 299, -50, -30},       {80, 100, 60, 75},  // over a face's border in the cap
      {90, 250, -89, 89},
  };
  for (const int level : {0, 1, 3, 4}) {
    for (const Box& box : boxes) {
      SCOPED_TRACE(
          fmt::format("level {} box {} {} {} {}", level, box.west, box.east, box.south, box.north));
      const auto points = sampled(level, box);
      EXPECT_TRUE(contains(as_set(Region::touching(level, box)), points));
      // a little smaller, nothing is in by a mere touch that no point of the lattice meets
      const double in = box.east - box.west >= 360 ? 0 : 0.02;
      const Box inner = {box.west + in, box.east - in, box.south + 0.02, box.north - 0.02};
      EXPECT_TRUE(contains(points, as_set(Region::touching(level, inner))));
    }
  }
}

TEST(Region, TouchingAPoint) {
  at::manual_seed(1);
  const auto lon = at::rand({200}, at::kDouble) * 360,
             lat = at::rand({200}, at::kDouble) * 180 - 90;
  const auto pix = healpix::ang2pix(20, lon, lat);
  for (int64_t i = 0; i < 200; ++i) {
    const double x = lon[i].item<double>(), y = lat[i].item<double>();
    const auto region = Region::touching(20, {x, x, y, y});
    EXPECT_EQ(as_set(region), std::set<int64_t>{pix[i].item<int64_t>()});
  }
  // every pixel that meets at the pole touches it
  EXPECT_EQ(Region::touching(5, {77, 77, 90, 90}).size(), 4);
  EXPECT_EQ(Region::touching(5, {77, 77, -90, -90}).size(), 4);
}

TEST(Region, TouchingEverything) {
  EXPECT_TRUE(Region::touching(4, {-180, 180, -90, 90}).is_global());
  EXPECT_TRUE(Region::touching(7, {0, 360, -90, 90}) == Region::global(7));
  expect_error([] { Region::touching(25, {0, 90, 0, 90}); }, "coarser level");
}

TEST(Region, TouchingRefusesBadBoxes) {
  expect_error([] { Region::touching(3, {0, 1, 5, 4}); }, "south 5 north 4");
  expect_error([] { Region::touching(3, {0, 1, 5, 91}); }, "north 91");
  expect_error([] { Region::touching(3, {NAN, 1, 5, 6}); }, "nan");
  expect_error([] { Region::touching(30, {0, 1, 5, 6}); }, "got 30");
}

TEST(Region, TouchingAMaskIsTheUnionOfItsCells) {
  const LatLonGrid grid({20, 10, 0, -10}, {350, 0, 10, 20, 30});
  auto mask = at::zeros({4, 5}, at::kBool);
  mask[0][1].fill_(true);
  mask[0][2].fill_(true);
  mask[2][4].fill_(true);
  const auto region = Region::touching(4, grid, mask);
  auto expected = as_set(Region::touching(4, {-5, 15, 15, 25}));
  expected.merge(as_set(Region::touching(4, {25, 35, -5, 5})));
  EXPECT_EQ(as_set(region), expected);
  EXPECT_TRUE(Region::touching(4, grid, mask.flatten()) == region);
  EXPECT_TRUE(
      Region::touching(3, LatLonGrid::regular(19, 36), at::ones({19, 36}, at::kBool)).is_global());
  expect_error([&] { Region::touching(4, grid, mask.to(at::kInt)); }, "bool mask of shape [4, 5]");
  expect_error([&] { Region::touching(4, grid, mask.t()); }, "bool mask");
  expect_error([&] { Region::touching(4, grid, at::zeros({4, 5}, at::kBool)); }, "a cell set");
}

TEST(Region, RefinedHoldsExactlyTheDescendants) {
  const auto region = Region::of_pixels(2, {3, 17, 18, 100, 191});
  for (const int up : {0, 1, 3}) {
    const auto fine = region.refined(up);
    EXPECT_EQ(fine.level(), 2 + up);
    EXPECT_EQ(fine.size(), 5 << 2 * up);
    EXPECT_TRUE((fine.pixels().diff() > 0).all().item<bool>());
    const auto parents = healpix::parent(2 + up, fine.pixels(), up);
    EXPECT_TRUE((region.index_of(parents) >= 0).all().item<bool>());
  }
  expect_error([&] { region.refined(28); }, "0..27 at level 2, got 28");
  expect_error([&] { region.refined(-1); }, "got -1");
  expect_error([&] { region.refined(20); }, "coarser level");
}

TEST(Region, ChildrenIndexIsTheViewOfAPatch) {
  for (const auto& region : {Region::of_pixels(2, {3, 17, 18, 100, 191}), Region::global(2)}) {
    for (const int up : {0, 1, 2}) {
      const int64_t width = 1 << up, n = 4;
      const auto index = region.children_index(up);
      ASSERT_EQ(index.sizes(), at::IntArrayRef({region.size(), width * width}));
      const auto fine = region.refined(up).pixels();
      for (int64_t i = 0; i < region.size(); ++i) {
        const int64_t p = region.pixels()[i].item<int64_t>();
        const int64_t face = p / (n * n), row = p / n % n, col = p % n;
        for (int64_t r = 0; r < width; ++r) {
          for (int64_t c = 0; c < width; ++c) {
            const int64_t child =
                (face * n * width + row * width + r) * n * width + col * width + c;
            ASSERT_EQ(fine[index[i][r * width + c].item<int64_t>()].item<int64_t>(), child);
          }
        }
      }
    }
  }
}

TEST(Region, IndexOf) {
  const auto region = Region::of_pixels(1, longs({1, 5, 40}).to(at::kInt));
  EXPECT_TRUE(
      identical(region.index_of(longs({{40, 1, 2}}).view({1, 3})), longs({2, 0, -1}).view({1, 3})));
  EXPECT_TRUE(identical(region.index_of(longs({-1, 48, 5})), longs({-1, -1, 1})));
  EXPECT_TRUE(identical(Region::global(0).index_of(longs({-1, 12, 5})), longs({-1, -1, 5})));
  EXPECT_EQ(region.index_of(longs({})).numel(), 0);
  expect_error([&] { region.index_of(at::zeros({2})); }, "integer pixels");
}

TEST(Region, OfPixelsRefusesBadLists) {
  expect_error([] { Region::of_pixels(1, {1, 48}); }, "0..47 at level 1, got 48");
  expect_error([] { Region::of_pixels(1, {-1}); }, "got -1");
  expect_error([] { Region::of_pixels(1, {3, 3}); }, "got 3 after 3");
  expect_error([] { Region::of_pixels(1, {4, 3}); }, "got 3 after 4");
  expect_error([] { Region::of_pixels(1, std::vector<int64_t>{}); }, "one integer pixel or more");
  expect_error([] { Region::of_pixels(1, at::zeros({2})); }, "one integer pixel or more");
  expect_error([] { Region::of_pixels(30, {1}); }, "got 30");
}

}  // namespace
}  // namespace halcyon
