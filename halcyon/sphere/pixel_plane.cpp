// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/pixel_plane.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace halcyon::detail {
namespace {

constexpr double kSlackHeight = 1e-12, kSlackDegrees = 1e-10;

// A convex polygon of a few corners; clipping by a line adds one at most.
struct Polygon {
  struct Point {
    double t, w;
  };
  std::array<Point, 12> corner;
  int size = 0;

  void add(Point p) { corner[size++] = p; }

  // Keeps the part where side(point) >= 0; side is linear (Sutherland and Hodgman 1974).
  template <class Side>
  void clip(const Side& side) {
    Polygon kept;
    for (int i = 0; i < size; ++i) {
      const Point a = corner[i], b = corner[(i + 1) % size];
      const double at_a = side(a), at_b = side(b);
      if (at_a >= 0) kept.add(a);
      if ((at_a < 0 && at_b > 0) || (at_a > 0 && at_b < 0)) {
        const double part = at_a / (at_a - at_b);
        kept.add({a.t + part * (b.t - a.t), a.w + part * (b.w - a.w)});
      }
    }
    *this = kept;
  }

  // Relative to the first corner, so that small polygons far from the origin keep their digits.
  double area() const {
    double twice = 0;
    for (int i = 2; i < size; ++i) {
      twice += (corner[i - 1].t - corner[0].t) * (corner[i].w - corner[0].w) -
               (corner[i].t - corner[0].t) * (corner[i - 1].w - corner[0].w);
    }
    return std::abs(twice) / 2;
  }
};

// The part of shared_area in one belt or cap, where narrowing is a + b w.
double shared_part(const PlanePixel& p, double west, double east, double low, double high, double a,
                   double b) {
  low = std::max(low, p.w - p.half);
  high = std::min(high, p.w + p.half);
  if (low >= high) return 0;
  Polygon shape;
  shape.add({p.t, p.w - p.half});
  shape.add({p.t + p.half, p.w});
  shape.add({p.t, p.w + p.half});
  shape.add({p.t - p.half, p.w});
  shape.clip([=](auto q) { return q.w - low; });
  shape.clip([=](auto q) { return high - q.w; });
  shape.clip([=](auto q) { return q.t - west / 45 * (a + b * q.w); });
  shape.clip([=](auto q) { return east / 45 * (a + b * q.w) - q.t; });
  return shape.area() * (M_PI / 6);
}

}  // namespace

PlanePixel plane_pixel(int level, const healpix::detail::FacePixel& p) {
  const double n = static_cast<double>(int64_t{1} << level);
  const int64_t band = p.face / 4, quadrant = p.face % 4;
  return {90.0 * quadrant + (band == 1 ? 0 : 45), (p.x - p.y) / n,
          1 - band + (p.x + p.y + 1 - (int64_t{1} << level)) / n, 1 / n};
}

double height_of(double lat) {
  const double z = std::sin(lat * (M_PI / 180));
  if (std::abs(z) <= 2.0 / 3.0) return 1.5 * z;
  const double from_pole = std::sqrt(6.0) * std::sin((90 - std::abs(lat)) * (M_PI / 360));
  return std::copysign(2 - from_pole, lat);
}

Extent extent(const PlanePixel& p, double low, double high) {
  low = std::max(low, p.w - p.half);
  high = std::min(high, p.w + p.half);
  Extent e = {INFINITY, -INFINITY};
  // along either side t / narrowing(w) is monotonic between these heights
  for (const double height : {low, high, p.w, -1.0, 1.0}) {
    const double w = std::clamp(height, std::min(low, high), high);
    const double reach = p.half - std::abs(w - p.w), narrow = narrowing(w);
    // the tip of a pixel at the pole is a whole quadrant
    const bool pole = narrow < 1e-15;
    e.west = std::min(e.west, pole ? -45 : 45 * (p.t - reach) / narrow);
    e.east = std::max(e.east, pole ? 45 : 45 * (p.t + reach) / narrow);
  }
  return e;
}

PlaneBox plane_box(const Box& box) {
  double width = box.east - box.west;
  if (width < 0) width = std::fmod(width, 360.0) + 360;
  return {box.west, width, height_of(box.south), height_of(box.north)};
}

Overlap overlap(const PlanePixel& p, const PlaneBox& box) {
  const double low = p.w - p.half, high = p.w + p.half;
  if (low > box.high + kSlackHeight || high < box.low - kSlackHeight) return Overlap::none;
  const bool within = low >= box.low && high <= box.high;
  if (box.width >= 360) return within ? Overlap::all : Overlap::some;
  const bool at_north_pole = high >= 2 - kSlackHeight && box.high >= 2 - kSlackHeight;
  const bool at_south_pole = low <= -2 + kSlackHeight && box.low <= -2 + kSlackHeight;
  if (at_north_pole || at_south_pole) return Overlap::some;

  const Extent e = extent(p, box.low, box.high);
  // how far east of the box's west side the pixel begins, in [0, 360)
  double start = std::fmod(p.meridian + e.west - box.west, 360.0);
  if (start < 0) start += 360;
  const double length = e.east - e.west;
  if (start > box.width + kSlackDegrees && start + length < 360 - kSlackDegrees) {
    return Overlap::none;
  }
  return within && start + length <= box.width ? Overlap::all : Overlap::some;
}

double shared_area(const PlanePixel& p, double west, double east, double low, double high) {
  return shared_part(p, west, east, std::max(low, -1.0), std::min(high, 1.0), 1, 0) +
         shared_part(p, west, east, std::max(low, 1.0), high, 2, -1) +
         shared_part(p, west, east, low, std::min(high, -1.0), 2, 1);
}

}  // namespace halcyon::detail
