// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/healpix.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/sphere/errors.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"

namespace halcyon::healpix {
namespace {

using test::expect_error;
using test::identical;

constexpr Order kOrders[] = {Order::nest, Order::ring, Order::pad_xy};

at::Tensor longs(const std::vector<int64_t>& v) {
  return at::tensor(v, at::kLong);
}
at::Tensor doubles(const std::vector<double>& v) {
  return at::tensor(v, at::kDouble);
}
at::Tensor all_pixels(int level) {
  return at::arange(npix(level), at::kLong);
}

// Random pixels of a level with the first and the last ones, which lie at poles or faces' corners.
at::Tensor some_pixels(int level, int64_t count) {
  const int64_t total = npix(level), ends = std::min<int64_t>(total, 300);
  return at::cat({at::arange(ends, at::kLong), at::arange(total - ends, total, at::kLong),
                  at::randint(total, {count}, at::kLong)});
}

TEST(Healpix, CountsPixels) {
  EXPECT_EQ(npix(0), 12);
  EXPECT_EQ(npix(6), 49152);
  EXPECT_EQ(npix(29), 3458764513820540928);
  EXPECT_EQ(level_of(49152), 6);
  EXPECT_EQ(level_of(3458764513820540928), 29);
  expect_error([] { level_of(49151); }, "12 * 4^level, got 49151");
}

TEST(Healpix, NamesOrders) {
  for (const Order order : kOrders) EXPECT_EQ(parse_order(name_of(order)), order);
  EXPECT_EQ(parse_order("pad_xy"), Order::pad_xy);
  expect_error([] { parse_order("NEST"); }, "nest, ring or pad_xy, got \"NEST\"");
}

// Answers of the `healpix` package 2024.2 of PyPI (chealpix).
TEST(Healpix, AgreesWithThePublicPackage) {
  const struct {
    int level;
    double lon, lat;
    int64_t nest, ring;
  } cases[] = {
      {0, 30.833700, 89.123456, 0, 0},
      {0, 33.886311, -12.564799, 8, 8},
      {0, 155.925698, 1.918642, 6, 6},
      {1, 155.026087, 89.123456, 7, 1},
      {1, 211.247486, -88.765400, 40, 46},
      {1, 233.476995, -21.840744, 43, 33},
      {4, 169.671479, 18.723420, 1766, 1022},
      {4, 278.379723, 59.646913, 958, 210},
      {4, 10.924563, -35.846637, 2222, 2401},
      {10, 107.338713, 89.123456, 2097056, 706},
      {10, 259.979331, -8.213040, 7930912, 7189390},
      {10, 236.754796, -52.689287, 10706369, 11297009},
      {20, 305.916601, 89.123456, 4397929297579, 772036705},
      {20, 141.813840, -88.765400, 9895838918629, 13192608042403},
      {20, 52.680445, -11.577168, 9845668555330, 7921017118091},
      {29, 64.903515, 89.123456, 288180980365032768, 202373990497075},
      {29, 204.112035, 14.322851, 1870791161638343076, 1301558230384818979},
      {29, 331.588684, 12.343234, 1364320891123396317, 1359696396670070874},
      {29, 74.079017, 70.240085, 248236724439936484, 101830307358716227},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(fmt::format("level {} lon {} lat {}", c.level, c.lon, c.lat));
    const auto lon = doubles({c.lon}), lat = doubles({c.lat});
    EXPECT_EQ(convert(c.level, longs({c.nest}), Order::nest, Order::ring).item<int64_t>(), c.ring);
    EXPECT_EQ(convert(c.level, longs({c.ring}), Order::ring, Order::nest).item<int64_t>(), c.nest);
    EXPECT_EQ(ang2pix(c.level, lon, lat, Order::nest).item<int64_t>(), c.nest);
    EXPECT_EQ(ang2pix(c.level, lon, lat, Order::ring).item<int64_t>(), c.ring);
  }
}

TEST(Healpix, OrdersConvertBothWaysAtEveryLevel) {
  at::manual_seed(1);
  for (int level = 0; level <= kMaxLevel; ++level) {
    const auto pixels = level <= 5 ? all_pixels(level) : some_pixels(level, 2000);
    for (const Order from : kOrders) {
      for (const Order to : kOrders) {
        const auto there = convert(level, pixels, from, to);
        EXPECT_TRUE(identical(convert(level, there, to, from), pixels)) << level;
        if (level > 5) continue;
        EXPECT_TRUE(identical(std::get<0>(there.sort()), pixels)) << level;
      }
    }
  }
}

TEST(Healpix, CentresLieInTheirPixelAtEveryLevel) {
  at::manual_seed(2);
  for (int level = 0; level <= kMaxLevel; ++level) {
    const auto pixels = level <= 5 ? all_pixels(level) : some_pixels(level, 5000);
    for (const Order order : kOrders) {
      const auto [lon, lat] = pix2ang(level, pixels, order);
      EXPECT_TRUE(identical(ang2pix(level, lon, lat, order), pixels)) << level;
      EXPECT_GE(lon.min().item<double>(), 0);
      EXPECT_LT(lon.max().item<double>(), 360);
    }
  }
}

TEST(Healpix, RingsRunFromNorthToSouthAndEastwards) {
  const auto [lon, lat] = pix2ang(4, all_pixels(4), Order::ring);
  const auto dlat = lat.diff(), dlon = lon.diff();
  EXPECT_LE(dlat.max().item<double>(), 1e-12);
  const auto same_ring = dlat.abs() < 1e-9;
  EXPECT_GT(dlon.index({same_ring}).min().item<double>(), 0);
  EXPECT_EQ((~same_ring).sum().item<int64_t>(), 4 * 16 - 2);
}

TEST(Healpix, PointsLieInThePixelOfTheirParent) {
  at::manual_seed(3);
  const auto lon = at::rand({20000}, at::kDouble) * 1080 - 360;
  const auto lat = (at::rand({20000}, at::kDouble) * 2 - 1).asin() * (180 / M_PI);
  for (const Order order : kOrders) {
    auto fine = ang2pix(29, lon, lat, order);
    for (int level = 28; level >= 0; --level) {
      fine = parent(level + 1, fine, 1, order);
      EXPECT_TRUE(identical(ang2pix(level, lon, lat, order), fine)) << level;
    }
    EXPECT_TRUE(identical(parent(29, ang2pix(29, lon, lat, order), 29, order), fine));
  }
}

TEST(Healpix, PointsAreNearTheirPixelsCentre) {
  at::manual_seed(4);
  const auto lon = at::rand({50000}, at::kDouble) * 360;
  const auto lat = (at::rand({50000}, at::kDouble) * 2 - 1).asin() * (180 / M_PI);
  for (const int level : {0, 3, 8}) {
    const auto [lon_c, lat_c] = pix2ang(level, ang2pix(level, lon, lat));
    const double degree = M_PI / 180;
    const auto cosine =
        (lat * degree).sin() * (lat_c * degree).sin() +
        (lat * degree).cos() * (lat_c * degree).cos() * ((lon - lon_c) * degree).cos();
    const double farthest = cosine.clamp(-1, 1).acos().max().item<double>();
    // the longest radius of a pixel, that of those at the poles, is below 1.2 / nside
    EXPECT_LT(farthest, 1.2 / (1 << level));
    EXPECT_GT(farthest, 0.6 / (1 << level));
  }
}

TEST(Healpix, PixelsHoldEqualShares) {
  at::manual_seed(5);
  const auto lon = at::rand({960000}) * 360;
  const auto lat = (at::rand({960000}, at::kDouble) * 2 - 1).asin().mul(180 / M_PI).to(at::kFloat);
  const auto counts = at::bincount(ang2pix(2, lon, lat), {}, 192);
  EXPECT_GT(counts.min().item<int64_t>(), 5000 - 400);  // more than five standard deviations
  EXPECT_LT(counts.max().item<int64_t>(), 5000 + 400);
}

TEST(Healpix, EdgesOfTheSphere) {
  EXPECT_TRUE(identical(ang2pix(0, doubles({0, 90, 180, 270, 360, -90}), doubles({90})),
                        longs({0, 1, 2, 3, 0, 3})));
  EXPECT_TRUE(
      identical(ang2pix(0, doubles({45, 45, 0, 359.999, -0.001}), doubles({-90, -60, 0, 0, 0})),
                longs({8, 8, 4, 4, 4})));
  // the data pipe's float32: just west of the meridian wraps to 360 and stays on the sphere
  const auto pix = ang2pix(29, at::tensor({-1e-30f, 1e-30f}), at::tensor({-45.f, 45.f}),
                           Order::pad_xy, Rule::healda);
  EXPECT_GE(pix.min().item<int64_t>(), 0);
  EXPECT_LT(pix.max().item<int64_t>(), npix(29));
}

TEST(Healpix, TakesAnyShapeAndDtype) {
  const auto lon = at::arange(0, 360, 30, at::kFloat), lat = at::arange(-80, 81, 20, at::kFloat);
  const auto table = ang2pix(3, lon, lat.unsqueeze(1));
  EXPECT_EQ(table.sizes(), at::IntArrayRef({9, 12}));
  EXPECT_EQ(table[2][5].item<int64_t>(), ang2pix(3, lon[5], lat[2]).item<int64_t>());
  EXPECT_EQ(ang2pix(3, lon[5], lat[2]).dim(), 0);
  EXPECT_EQ(ang2pix(3, lon.slice(0, 0, 0), lat.slice(0, 0, 0)).numel(), 0);
  EXPECT_TRUE(identical(ang2pix(3, lon.slice(0, 0, 12, 3), lat[1]),
                        ang2pix(3, lon.slice(0, 0, 12, 3).contiguous(), lat[1])));
  // whole degrees: integers as float64, half precision exactly
  const auto whole = at::arange(1, 9, at::kLong);
  EXPECT_TRUE(identical(ang2pix(8, whole, whole), ang2pix(8, whole.to(at::kDouble), whole)));
  EXPECT_TRUE(identical(ang2pix(8, whole.to(at::kBFloat16), whole.to(at::kBFloat16)),
                        ang2pix(8, whole.to(at::kFloat), whole.to(at::kFloat))));
  EXPECT_TRUE(identical(parent(3, table.to(at::kInt), 2), parent(3, table, 2)));
  EXPECT_EQ(neighbours(3, table).sizes(), at::IntArrayRef({9, 12, 8}));
  EXPECT_EQ(std::get<0>(pix2ang(3, table.slice(0, 0, 0))).sizes(), at::IntArrayRef({0, 12}));
}

TEST(Healpix, ParentOfPadXyShiftsRowAndColumn) {
  // level 3, n = 8: face 5, row 6, col 3 -> level 1, n = 2: row 1, col 0
  EXPECT_EQ(parent(3, longs({5 * 64 + 6 * 8 + 3}), 2).item<int64_t>(), 5 * 4 + 1 * 2 + 0);
  EXPECT_EQ(parent(3, longs({777 - 512}), 2, Order::nest).item<int64_t>(), 16);
  EXPECT_TRUE(identical(parent(4, all_pixels(4), 0), all_pixels(4)));
  EXPECT_TRUE(
      identical(parent(4, all_pixels(4), 3, Order::nest), all_pixels(4).bitwise_right_shift(6)));
}

TEST(Healpix, ReorderMovesTheSamePixels) {
  at::manual_seed(6);
  const auto data = at::randn({2, 192, 3}, at::kDouble);
  for (const Order from : kOrders) {
    for (const Order to : kOrders) {
      const auto moved = reorder(data, from, to, 1);
      const auto places = convert(2, all_pixels(2), from, to);
      EXPECT_TRUE(identical(moved.index_select(1, places), data));
      EXPECT_TRUE(identical(reorder(data.transpose(1, 2), from, to), moved.transpose(1, 2)));
      EXPECT_TRUE(identical(reorder(moved, to, from, -2), data));
    }
  }
  const auto leaf = at::randn({48, 2}, at::kDouble).requires_grad_();
  EXPECT_TRUE(test::gradcheck(
      [&] { return std::vector{reorder(leaf, Order::ring, Order::pad_xy, 0).pow(2)}; }, {leaf}));
}

TEST(Healpix, RefusesWhatIsNotOnTheSphere) {
  const auto zero = doubles({0});
  expect_error([&] { ang2pix(30, zero, zero); }, "[ang2pix] expected a level in 0..29, got 30");
  expect_error([&] { npix(-1); }, "0..29, got -1");
  expect_error([&] { ang2pix(3, zero, doubles({90.001})); }, "lat 90.001 at position 0");
  expect_error([&] { ang2pix(3, zero, doubles({1, 2, -91})); }, "lat -91 at position 2");
  expect_error([&] { ang2pix(3, zero, doubles({NAN})); }, "nan");
  expect_error([&] { ang2pix(3, doubles({NAN}), zero); }, "nan");
  expect_error([&] { ang2pix(3, doubles({INFINITY}), zero); }, "inf");
  expect_error([&] { ang2pix(3, doubles({1, 2}), doubles({1, 2, 3})); }, "shapes [2] and [3]");
  expect_error([&] { ang2pix(3, zero > 0, zero); }, "real numbers, got Bool");
  expect_error([&] { ang2pix(3, zero.to(at::kComplexDouble), zero); }, "real numbers");
  expect_error(
      [&] {
        pix2ang(1, longs({0, 48}));
      },
      "[pix2ang] expected pixels in 0..47 at level 1");
  expect_error([&] { neighbours(1, longs({-1})); }, "got -1");
  expect_error([&] { parent(2, longs({192})); }, "got 192");
  expect_error([&] { parent(2, longs({1}), 3); }, "expected up in 0..2 at level 2, got 3");
  expect_error([&] { parent(2, longs({1}), -1); }, "got -1");
  expect_error([&] { convert(0, longs({12}), Order::nest, Order::ring); }, "got 12");
  expect_error([&] { convert(0, zero, Order::nest, Order::ring); }, "integer pixels, got Double");
  expect_error([&] { nest_of_padxy(29); }, "0..13, got 29");
  expect_error([&] { reorder(zero, Order::nest, Order::ring); }, "12 * 4^level, got 1");
  expect_error([&] { reorder(at::zeros({12}), Order::nest, Order::ring, 1); }, "got 1");
  expect_error([&] { reorder(at::zeros({}), Order::nest, Order::ring); }, "scalar");
}

TEST(Healpix, AnswersDoNotDependOnThreads) {
  at::manual_seed(7);
  const auto lon = at::rand({100003}) * 360, lat = at::rand({100003}) * 180 - 90;
  const int threads = at::get_num_threads();
  const auto many = ang2pix(10, lon, lat);
  at::set_num_threads(1);
  const auto one = ang2pix(10, lon, lat);
  at::set_num_threads(threads);
  EXPECT_TRUE(identical(one, many));
}

}  // namespace
}  // namespace halcyon::healpix
