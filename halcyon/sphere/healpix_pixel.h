// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "halcyon/sphere/healpix.h"

// One pixel at a time, unchecked: what the tensor functions and the other rooms' loops are made of.
namespace halcyon::healpix::detail {

// x grows to the north-east, y to the north-west, from the face's south corner; 0 <= x, y <
// 2^level.
struct FacePixel {
  int64_t face, x, y;
};

// 0b1011 -> 0b01000101: room for a second number between the bits.
inline uint64_t spread_bits(uint64_t v) {
  v = (v | v << 16) & 0x0000ffff0000ffff;
  v = (v | v << 8) & 0x00ff00ff00ff00ff;
  v = (v | v << 4) & 0x0f0f0f0f0f0f0f0f;
  v = (v | v << 2) & 0x3333333333333333;
  return (v | v << 1) & 0x5555555555555555;
}

inline uint64_t gather_bits(uint64_t v) {
  v &= 0x5555555555555555;
  v = (v | v >> 1) & 0x3333333333333333;
  v = (v | v >> 2) & 0x0f0f0f0f0f0f0f0f;
  v = (v | v >> 4) & 0x00ff00ff00ff00ff;
  v = (v | v >> 8) & 0x0000ffff0000ffff;
  return (v | v >> 16) & 0x00000000ffffffff;
}

inline FacePixel from_nest(int level, int64_t pix) {
  const uint64_t inside = pix & ((int64_t{1} << 2 * level) - 1);
  return {pix >> 2 * level, static_cast<int64_t>(gather_bits(inside)),
          static_cast<int64_t>(gather_bits(inside >> 1))};
}

inline int64_t to_nest(int level, const FacePixel& p) {
  return (p.face << 2 * level) + static_cast<int64_t>(spread_bits(p.x) | spread_bits(p.y) << 1);
}

inline FacePixel from_padxy(int level, int64_t pix) {
  const int64_t last = (int64_t{1} << level) - 1;
  return {pix >> 2 * level, last - ((pix >> level) & last), last - (pix & last)};
}

inline int64_t to_padxy(int level, const FacePixel& p) {
  const int64_t last = (int64_t{1} << level) - 1;
  return (p.face << 2 * level) + ((last - p.x) << level) + last - p.y;
}

// Ring i = 1 .. 4n-1 from north to south.
struct Ring {
  int64_t start, count;  // its first pixel in ring order and how many it has
  bool half;             // the first pixel's centre is half a pixel, not zero, east of lon 0
};

inline Ring ring(int level, int64_t i) {
  const int64_t n = int64_t{1} << level;
  if (i < n) return {2 * i * (i - 1), 4 * i, true};
  if (i <= 3 * n) return {2 * n * (n - 1) + (i - n) * 4 * n, 4 * n, (i - n) % 2 == 0};
  const int64_t from_south = 4 * n - i;
  return {12 * n * n - 2 * from_south * (from_south + 1), 4 * from_south, true};
}

// Colatitude of a ring in radians; the poles are rings 0 and 4n.
inline double ring_colatitude(int level, int64_t i) {
  const int64_t n = int64_t{1} << level;
  if (i < n) return 2 * std::asin(static_cast<double>(i) / (n * std::sqrt(6.0)));
  if (i <= 3 * n) return std::acos(2.0 * (2 * n - i) / (3.0 * n));
  return M_PI - ring_colatitude(level, 4 * n - i);
}

inline int64_t integer_sqrt(int64_t v) {
  auto root = static_cast<int64_t>(std::sqrt(static_cast<double>(v)));
  while (root * root > v) --root;
  while ((root + 1) * (root + 1) <= v) ++root;
  return root;
}

// In the plane of the projection, turned by 45 degrees, faces are unit squares: column bx from the
// west, row by from the north. Three diagonals of squares are in use.
inline int64_t face_of_block(int64_t bx, int64_t by) {
  if (bx > by) return by;
  return bx % 4 + (bx == by ? 4 : 8);
}

inline FacePixel from_ring(int level, int64_t pix) {
  const int64_t n = int64_t{1} << level, cap = 2 * n * (n - 1), total = 12 * n * n;
  if (pix >= cap && pix < total - cap) {
    const int64_t i = n + (pix - cap) / (4 * n), j = (pix - cap) % (4 * n);
    const int64_t h = 2 * j + ((i - n) % 2 == 0);  // longitude in units of 45 degrees / n
    const int64_t gx = (h + 3 * n - i - 1) >> 1, gy = (n - i - h - 1) >> 1;
    return {face_of_block(gx >> level, -1 - (gy >> level)), gx & (n - 1), gy & (n - 1)};
  }
  const bool north = pix < cap;
  const int64_t from_pole = north ? pix : total - 1 - pix;
  const int64_t i = (1 + integer_sqrt(1 + 2 * from_pole)) >> 1;
  const int64_t along = from_pole - 2 * i * (i - 1), j = north ? along : 4 * i - 1 - along;
  const int64_t quadrant = j / i, east = 2 * (j - quadrant * i) - (i - 1);  // x - y
  const int64_t up = north ? 2 * n - 1 - i : i - 1;                         // x + y
  return {quadrant + (north ? 0 : 8), (up + east) / 2, (up - east) / 2};
}

inline int64_t to_ring(int level, const FacePixel& p) {
  const int64_t n = int64_t{1} << level, band = p.face / 4, quadrant = p.face % 4;
  const int64_t i = (2 + band) * n - p.x - p.y - 1, east = p.x - p.y;
  const Ring r = ring(level, i);
  if (i < n || i > 3 * n) {
    const int64_t quarter = r.count / 4;
    return r.start + quadrant * quarter + (east + quarter - 1) / 2;
  }
  const int64_t h = (2 * quadrant + (band != 1)) * n + east;  // longitude, as in from_ring
  return r.start + ((h & (8 * n - 1)) >> 1);
}

inline FacePixel decode(Order order, int level, int64_t pix) {
  switch (order) {
    case Order::nest:
      return from_nest(level, pix);
    case Order::ring:
      return from_ring(level, pix);
    case Order::pad_xy:
      break;
  }
  return from_padxy(level, pix);
}

inline int64_t encode(Order order, int level, const FacePixel& p) {
  switch (order) {
    case Order::nest:
      return to_nest(level, p);
    case Order::ring:
      return to_ring(level, p);
    case Order::pad_xy:
      break;
  }
  return to_padxy(level, p);
}

// The pixel one step (dx, dy in -1..1) away, across the face's border where need be; face -1 where
// three faces meet and the step leads to none.
FacePixel step(int level, FacePixel p, int dx, int dy);

// Centre of a pixel in degrees, lon in [0, 360).
struct LonLat {
  double lon, lat;
};
LonLat centre(int level, const FacePixel& p);

// Where 1 - |z| falls below this, formulas in z lose the last pixels of level 29 (half of the
// digits of 1 - cos t are gone at t = 1e-8); float64 goes by the half angle there.
inline constexpr double kNearPole = 1e-6;

// Rule::standard, the one finder: the pixel that holds a point in degrees, on a border the one that
// the public HEALPix C++ library names. lon is finite, |lat| <= 90.
FacePixel pixel_at(int level, double lon, double lat);

}  // namespace halcyon::healpix::detail
