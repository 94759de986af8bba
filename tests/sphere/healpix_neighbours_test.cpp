// SPDX-License-Identifier: Apache-2.0
// Neighbours against geometry: pixels are neighbours when they share a corner on the sphere.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "halcyon/sphere/healpix.h"
#include "tests/support/compare.h"

namespace halcyon::healpix {
namespace {

using Key = std::array<int64_t, 3>;  // a point on the sphere, rounded
enum Corner { south, east, north, west };

// Equations 26 to 34 of Gorski et al. (2005), from the plane to the sphere.
Key point(int face, double x, double y) {
  const double column = face / 4 == 1 ? 2 * (face % 4) : 2 * (face % 4) + 1;
  const double u = column + x - y, w = 1 - face / 4 + x + y - 1;
  const double height = std::abs(w);
  double lon = u * M_PI / 4, z = 2 * w / 3;
  if (height > 1) {
    const double middle = 2 * std::floor(u / 2) + 1;
    lon = height < 2 ? (middle + (column - middle) + (u - column) / (2 - height)) * M_PI / 4 : 0;
    z = std::copysign(1 - (2 - height) * (2 - height) / 3, w);
  }
  const double r = std::sqrt(std::max(0.0, 1 - z * z));
  const auto rounded = [](double v) { return static_cast<int64_t>(std::llround(v * 1e7)); };
  return {rounded(r * std::cos(lon)), rounded(r * std::sin(lon)), rounded(z)};
}

std::array<Key, 4> corners(int level, int64_t nest) {
  const int64_t n = 1 << level, face = nest / (n * n);
  int64_t x = 0, y = 0;
  for (int bit = 0; bit < level; ++bit) {
    x |= (nest >> 2 * bit & 1) << bit;
    y |= (nest >> (2 * bit + 1) & 1) << bit;
  }
  const auto at = [&](int64_t cx, int64_t cy) {
    return point(static_cast<int>(face), static_cast<double>(cx) / n, static_cast<double>(cy) / n);
  };
  return {at(x, y), at(x + 1, y), at(x + 1, y + 1), at(x, y + 1)};
}

TEST(HealpixNeighbours, AreThePixelsThatShareACorner) {
  // SW, W, NW, N, NE, E, SE, S
  const std::vector<Corner> shared[] = {{south, west}, {west}, {west, north}, {north},
                                        {north, east}, {east}, {east, south}, {south}};
  for (const int level : {0, 1, 2, 3}) {
    const int64_t total = npix(level);
    std::map<Key, std::set<int64_t>> around;
    std::vector<std::array<Key, 4>> corner(total);
    for (int64_t p = 0; p < total; ++p) {
      corner[p] = corners(level, p);
      for (const Key& k : corner[p]) around[k].insert(p);
    }
    EXPECT_EQ(static_cast<int64_t>(around.size()), total + 2);  // Euler: V = 2 + E - F, E = 2 F

    const auto table = neighbours(level, at::arange(total, at::kLong), Order::nest);
    const auto a = table.accessor<int64_t, 2>();
    int64_t missing = 0;
    for (int64_t p = 0; p < total; ++p) {
      std::set<int64_t> expected, found;
      for (const Key& k : corner[p]) expected.insert(around[k].begin(), around[k].end());
      expected.erase(p);
      for (int k = 0; k < 8; ++k) {
        const int64_t q = a[p][k];
        if (q < 0) {
          ++missing;
          continue;
        }
        found.insert(q);
        const std::set<Key> theirs(corner[q].begin(), corner[q].end());
        for (const Corner c : shared[k]) {
          EXPECT_TRUE(theirs.contains(corner[p][c])) << level << " " << p << " direction " << k;
        }
      }
      EXPECT_EQ(found, expected) << "level " << level << " pixel " << p;
    }
    EXPECT_EQ(missing, 24);
  }
}

// The examples in healpy's documentation of get_all_neighbours.
TEST(HealpixNeighbours, LiteralsOfThePublicPackage) {
  EXPECT_TRUE(test::identical(
      neighbours(0, at::tensor({4, 5})),
      at::tensor({11, 7, 3, -1, 0, 5, 8, -1, 8, 4, 0, -1, 1, 6, 9, -1}, at::kLong).view({2, 8})));
}

TEST(HealpixNeighbours, AreMutualInEveryOrderAtEveryLevel) {
  at::manual_seed(1);
  for (int level = 0; level <= kMaxLevel; ++level) {
    const int64_t total = npix(level);
    const auto pixels = at::cat({at::randint(total, {300}, at::kLong), at::arange(12, at::kLong),
                                 at::arange(total - 12, total, at::kLong)});
    for (const Order order : {Order::nest, Order::ring, Order::pad_xy}) {
      const auto table = neighbours(level, pixels, order);
      const auto present = table >= 0;
      const auto back = neighbours(level, table.clamp_min(0), order);
      const auto mutual =
          (back == pixels.view({-1, 1, 1})).any(-1).logical_or(present.logical_not());
      EXPECT_TRUE(mutual.all().item<bool>()) << level;
      const auto nested =
          neighbours(level, convert(level, pixels, order, Order::nest), Order::nest);
      const auto same = convert(level, table.clamp_min(0), order, Order::nest);
      EXPECT_TRUE(test::identical(at::where(present, same, at::full({}, -1, at::kLong)), nested));
    }
  }
}

}  // namespace
}  // namespace halcyon::healpix
