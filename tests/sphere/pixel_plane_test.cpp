// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/pixel_plane.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/sphere/healpix.h"
#include "tests/support/compare.h"

namespace halcyon::detail {
namespace {

using healpix::detail::FacePixel;

TEST(PixelPlane, HeightsAndCentres) {
  EXPECT_EQ(height_of(90), 2);
  EXPECT_EQ(height_of(-90), -2);
  EXPECT_EQ(height_of(0), 0);
  EXPECT_NEAR(height_of(std::asin(2.0 / 3) * 180 / M_PI), 1, 1e-15);
  for (int64_t pix = 0; pix < 768; ++pix) {
    const auto p = healpix::detail::from_nest(3, pix);
    const auto plane = plane_pixel(3, p);
    const auto centre = healpix::detail::centre(3, p);
    EXPECT_NEAR(height_of(centre.lat), plane.w, 1e-13);
    const double lon = plane.meridian + 45 * plane.t / narrowing(plane.w);
    EXPECT_NEAR(std::remainder(lon - centre.lon, 360), 0, 1e-11) << pix;
  }
}

TEST(PixelPlane, AWholePixelIsItsShareOfTheSphere) {
  for (const int level : {0, 2, 8}) {
    for (int64_t face = 0; face < 12; ++face) {
      const FacePixel last = {face, (1 << level) - 1, (1 << level) - 1};
      const double expected = 4 * M_PI / static_cast<double>(healpix::npix(level));
      EXPECT_NEAR(shared_area(plane_pixel(level, last), -400, 400, -2, 2) / expected, 1, 1e-12);
      EXPECT_EQ(shared_area(plane_pixel(level, last), 100, 400, -2, 2), 0);
    }
  }
}

TEST(PixelPlane, AreasOfCellsOnAFace) {
  // the polar part of face 0: a quarter of a cap above 60 degrees, and half of that in longitude
  const auto face = plane_pixel(0, {0, 0, 0});
  const double cap = M_PI / 2 * (1 - std::sin(M_PI / 3)), low = height_of(60);
  EXPECT_NEAR(shared_area(face, -45, 45, low, 2), cap, 1e-14);
  EXPECT_NEAR(shared_area(face, -90, 0, low, 2), cap / 2, 1e-14);
  EXPECT_NEAR(shared_area(face, 15, 45, low, 2), cap / 3, 1e-14);
  // the middle of face 4 holds 20 x 20 degrees around (0, 0)
  const auto equator = plane_pixel(0, {4, 0, 0});
  EXPECT_NEAR(shared_area(equator, -10, 10, height_of(-10), height_of(10)),
              M_PI / 9 * 2 * std::sin(M_PI / 18), 1e-14);
}

TEST(PixelPlane, PixelAtIsAngToPix) {
  at::manual_seed(1);
  // and on the borders of faces
  const auto meridians = at::arange(0, 20000, at::kDouble).remainder(8) * 45 - 180;
  const auto lon = at::cat({at::rand({20000}, at::kDouble) * 720 - 360, meridians});
  const auto lat = (at::rand({40000}, at::kDouble) * 2 - 1).asin() * (180 / M_PI);
  for (const int level : {0, 5, 18}) {
    const auto pix = healpix::ang2pix(level, lon, lat, healpix::Order::nest);
    const auto own = at::empty_like(pix);
    for (int64_t i = 0; i < lon.numel(); ++i) {
      const auto p = healpix::detail::pixel_at(level, lon.const_data_ptr<double>()[i],
                                               lat.const_data_ptr<double>()[i]);
      own.mutable_data_ptr<int64_t>()[i] = healpix::detail::to_nest(level, p);
    }
    EXPECT_TRUE(test::identical(own, pix)) << level;
  }
}

TEST(PixelPlane, PixelAtBordersIsOneOfThoseThatMeet) {
  const auto nest = [](double lon, double lat) {
    return healpix::detail::to_nest(1, healpix::detail::pixel_at(1, lon, lat));
  };
  EXPECT_EQ(nest(0, 90), 3);      // the north corner of face 0
  EXPECT_EQ(nest(271, 90), 15);   // of face 3
  EXPECT_EQ(nest(100, -90), 36);  // the south corner of face 9
  EXPECT_EQ(nest(90, 60), 6);     // faces 0 and 1 meet on this meridian: the north-west edge of 1
  EXPECT_EQ(nest(360, 60), 2);
  EXPECT_EQ(nest(45, 0), 22);  // corners of 0, 4, 5 and 8: the west corner of face 5
}

}  // namespace
}  // namespace halcyon::detail
