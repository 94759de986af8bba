// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/arange.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "halcyon/sphere/healpix.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/paths.h"

namespace halcyon::healpix {
namespace {

using test::identical;
using test::near;

at::Tensor all_pixels(int level) {
  return at::arange(npix(level), at::kLong);
}

TEST(HealpixGolden, OrdersAndCentres) {
  HALCYON_NEEDS_SHARED();
  const auto golden = test::golden("healda/healpix");
  for (int level = 0; level < 4; ++level) {
    SCOPED_TRACE(level);
    const auto suffix = fmt::format("_l{}", level);
    EXPECT_TRUE(identical(nest_of_padxy(level), golden.at("out.nest_of_padxy" + suffix)));
    EXPECT_TRUE(identical(convert(level, all_pixels(level), Order::ring, Order::nest),
                          golden.at("out.nest_of_ring" + suffix)));
    const auto [lon, lat] = pix2ang(level, all_pixels(level));
    EXPECT_TRUE(near(lon, golden.at("out.lon" + suffix), 1e-14));
    EXPECT_TRUE(near(lat, golden.at("out.lat" + suffix), 1e-13));
  }
}

TEST(HealpixGolden, PixelsOfTheDataPipeInBothPrecisions) {
  HALCYON_NEEDS_SHARED();
  const auto golden = test::golden("healda/healpix");
  for (const char* dtype : {"f32", "f64"}) {
    const auto lon = golden.at(std::string("in.lon_") + dtype);
    const auto lat = golden.at(std::string("in.lat_") + dtype);
    for (const int level : {1, 5, 6, 10}) {
      SCOPED_TRACE(fmt::format("{} level {}", dtype, level));
      EXPECT_TRUE(identical(ang2pix(level, lon, lat, Order::nest, Rule::healda),
                            golden.at(fmt::format("out.pix_nest_l{}_{}", level, dtype))));
      EXPECT_TRUE(identical(ang2pix(level, lon, lat, Order::pad_xy, Rule::healda),
                            golden.at(fmt::format("out.pix_padxy_l{}_{}", level, dtype))));
    }
  }
}

TEST(HealpixGolden, Reorder) {
  HALCYON_NEEDS_SHARED();
  const auto golden = test::golden("healda/healpix");
  EXPECT_TRUE(identical(reorder(all_pixels(3), Order::nest, Order::pad_xy),
                        golden.at("out.reorder_nest_to_padxy_l3")));
  EXPECT_TRUE(identical(reorder(all_pixels(3), Order::pad_xy, Order::nest),
                        golden.at("out.reorder_padxy_to_nest_l3")));
}

}  // namespace
}  // namespace halcyon::healpix
