// SPDX-License-Identifier: Apache-2.0
// The pixel finder where pixels, faces and turns meet. tests/python/test_healpix_borders.py holds
// it against another library.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "halcyon/sphere/healpix.h"
#include "halcyon/sphere/healpix_pixel.h"
#include "tests/sphere/errors.h"
#include "tests/support/compare.h"

namespace halcyon::healpix {
namespace {

using test::expect_error;
using test::identical;

constexpr double kCap = 41.810314895778596;  // asin(2/3): where the caps begin

at::Tensor doubles(const std::vector<double>& v) {
  return at::tensor(v, at::kDouble);
}

struct Points {
  std::vector<double> lon, lat;
};

// On all borders of faces: meridians of the caps, diagonals of the belt, corners and poles.
Points on_borders() {
  Points p;
  const auto add = [&](double lon, double lat) {
    p.lon.push_back(lon);
    p.lat.push_back(lat);
  };
  for (int quarter = 0; quarter < 4; ++quarter) {
    const double east = 90.0 * quarter;
    for (const double pole : {1.0, -1.0}) {
      for (int k = 0; k <= 8; ++k) {
        const double part = k / 8.0;
        const double slope = std::asin(2.0 / 3 * (1 - part)) * 180 / M_PI;
        add(east, pole * (kCap + part * (90 - kCap)));
        add(east + 45 * part, pole * slope);
        add(east + 90 - 45 * part, pole * slope);
      }
      add(east + 33, pole * 90);
    }
  }
  return p;
}

// Degrees along the great circle, by the half angle: small ones keep their digits.
double apart(double lon_a, double lat_a, double lon_b, double lat_b) {
  constexpr double kDegree = M_PI / 180;
  const double y = std::sin((lat_a - lat_b) * kDegree / 2),
               x = std::sin((lon_a - lon_b) * kDegree / 2);
  const double half =
      std::hypot(y, x * std::sqrt(std::cos(lat_a * kDegree) * std::cos(lat_b * kDegree)));
  return 2 * std::asin(std::min(1.0, half)) / kDegree;
}

TEST(HealpixBorders, NoPointIsFartherFromItsCentreThanAPixelReaches) {
  const Points points = on_borders();
  const double steps[] = {0, 1e-300, -1e-300, 1e-14, -1e-14, 1e-9, -1e-9, 1e-3, -1e-3};
  for (int level = 0; level <= kMaxLevel; ++level) {
    // the longest radius of a pixel: 61 degrees for the twelve, 1.2 / nside of a radian beyond
    const double reach =
        level == 0 ? 61 : 1.2 / static_cast<double>(int64_t{1} << level) * 180 / M_PI;
    for (std::size_t i = 0; i < points.lon.size(); ++i) {
      for (const double east : steps) {
        for (const double north : steps) {
          const double lon = points.lon[i] + east,
                       lat = std::clamp(points.lat[i] + north, -90.0, 90.0);
          const auto at = detail::centre(level, detail::pixel_at(level, lon, lat));
          ASSERT_LT(apart(lon, lat, at.lon, at.lat), reach + 1e-13)
              << "level " << level << " lon " << lon << " lat " << lat;
        }
      }
    }
  }
}

TEST(HealpixBorders, BelongToOneSideAtEveryLevel) {
  const auto lon = doubles({0, 90, 180, 270, 360, -90, -360}),
             east = at::tensor({0, 1, 2, 3, 0, 3, 0}, at::kLong);
  for (int level = 0; level <= kMaxLevel; ++level) {
    const auto face = [&](double lat) {
      return ang2pix(level, lon, doubles({lat}), Order::nest).bitwise_right_shift(2 * level);
    };
    for (const double lat : {90.0, 89.9999999, 66.6, 41.82}) {
      EXPECT_TRUE(identical(face(lat), east)) << level << " " << lat;
      EXPECT_TRUE(identical(face(-lat), east + 8)) << level << " " << -lat;
    }
    // the corners of four faces on the equator go east as well
    const auto corners = ang2pix(level, doubles({45, 135, 225, 315}), doubles({0}), Order::nest);
    EXPECT_TRUE(
        identical(corners.bitwise_right_shift(2 * level), at::tensor({5, 6, 7, 4}, at::kLong)));
  }
}

TEST(HealpixBorders, JustWestOfAMeridianIsWestOfIt) {
  const double tiny = std::numeric_limits<double>::denorm_min();
  const auto lon =
      doubles({-tiny, -1e-300, -1e-14, std::nextafter(360.0, 0.0), std::nextafter(90.0, 0.0)});
  for (const double lat : {66.6, -66.6, 89.9999999}) {
    const auto face = ang2pix(29, lon, doubles({lat}), Order::nest).bitwise_right_shift(58);
    EXPECT_TRUE(identical(face.remainder(4), at::tensor({3, 3, 3, 3, 0}, at::kLong))) << lat;
  }
  EXPECT_TRUE(identical(ang2pix(29, doubles({-0.0}), doubles({-0.0})),
                        ang2pix(29, doubles({0}), doubles({0}))));
}

TEST(HealpixBorders, AnyNumberOfTurns) {
  const auto lon = at::arange(0, 360, 2.8125, at::kDouble);  // exact after any turn
  const auto lat = doubles({90, 66.6, 41.82, kCap, 30, 0, -30, -kCap, -66.6, -90}).unsqueeze(1);
  for (const int level : {0, 1, 12, 29}) {
    const auto once = ang2pix(level, lon, lat);
    for (const double turns : {-1.0, 1.0, 2.0, -3.0, 2778.0, -1e6})
      EXPECT_TRUE(identical(ang2pix(level, lon + 360 * turns, lat), once)) << turns;
  }
  EXPECT_TRUE(identical(ang2pix(5, doubles({1e300}), doubles({10})),
                        ang2pix(5, doubles({std::fmod(1e300, 360)}), doubles({10}))));
}

TEST(HealpixBorders, TakesEachDtypeForWhatItIs) {
  const Points points = on_borders();
  const auto lon = doubles(points.lon), lat = doubles(points.lat);
  for (const auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const auto x = at::cat({lon, doubles({std::nextafter(360.0f, 0.0f), -1e-8, -1e-30})}).to(dtype);
    const auto y = at::cat({lat, doubles({66.5, 41, -66.5})}).to(dtype).clamp(-90, 90);
    for (const int level : {0, 3, 10, 29}) {
      const auto expected = ang2pix(level, x.to(at::kDouble), y.to(at::kDouble));
      EXPECT_TRUE(identical(ang2pix(level, x, y), expected)) << level << " " << dtype;
      // of two dtypes each keeps its digits, a single number's too
      EXPECT_TRUE(identical(ang2pix(level, x, lat[5]), ang2pix(level, x.to(at::kDouble), lat[5])));
    }
  }
}

TEST(HealpixBorders, RulesHaveNames) {
  for (const Rule rule : {Rule::standard, Rule::healda}) EXPECT_EQ(parse_rule(name_of(rule)), rule);
  expect_error([] { parse_rule("healpy"); }, "standard or healda, got \"healpy\"");
}

// What the released models have seen: at the border of a face the pixel of its opposite border.
TEST(HealpixBorders, TheDataPipesRuleDiffersOnThem) {
  const auto lon = doubles({270, 270.5}), lat = doubles({70, 70});
  const auto pix = ang2pix(2, lon, lat),
             released = ang2pix(2, lon, lat, Order::pad_xy, Rule::healda);
  EXPECT_EQ(pix[1].item<int64_t>(), released[1].item<int64_t>());
  EXPECT_EQ(pix[0].item<int64_t>(), 52);       // face 3
  EXPECT_EQ(released[0].item<int64_t>(), 39);  // face 2
}

}  // namespace
}  // namespace halcyon::healpix
