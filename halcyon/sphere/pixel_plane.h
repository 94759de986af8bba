// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "halcyon/sphere/healpix_pixel.h"
#include "halcyon/sphere/region.h"

// Pixels in the plane of HEALPix's projection, where they are squares standing on a corner.
//
// Heights w run from -2 (south pole) to 2, one unit being pi/4 of the paper's y; w depends on the
// latitude alone. t is the eastward distance from the middle meridian of the pixel's face. A row of
// the plane at height w is narrowed by narrowing(w), 1 in the belt |w| <= 1 and 2 - |w| in the
// caps: a point stands 45 t / narrowing(w) degrees east of that meridian. So parallels and
// meridians are straight lines on either side of w = +-1, and areas are pi/6 of the sphere's.
namespace halcyon::detail {

struct PlanePixel {
  double meridian;  // degrees, the middle of the face
  double t, w;      // the centre
  double half;      // half the diagonal
};

PlanePixel plane_pixel(int level, const healpix::detail::FacePixel& pixel);

double height_of(double lat);  // degrees -> w
inline double narrowing(double w) {
  return std::abs(w) <= 1 ? 1 : 2 - std::abs(w);
}

// Degrees east of the middle meridian that the pixel reaches at heights low..high, which it must
// reach.
struct Extent {
  double west, east;
};
Extent extent(const PlanePixel& pixel, double low, double high);

// A box with its heights worked out.
struct PlaneBox {
  double west, width, low, high;
};
PlaneBox plane_box(const Box& box);

enum class Overlap { none, some, all };
Overlap overlap(const PlanePixel& pixel, const PlaneBox& box);

// Steradians that the pixel shares with the cell low <= w <= high, west <= degrees east of the
// middle meridian <= east (not wrapped: ask again 360 degrees on).
double shared_area(const PlanePixel& pixel, double west, double east, double low, double high);

}  // namespace halcyon::detail
