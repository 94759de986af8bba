// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/healpix_pixel.h"
#include <algorithm>
#include <cmath>

#include "halcyon/sphere/healpix_locate.h"

namespace halcyon::healpix::detail {
namespace {

// The south corner of each face in the turned plane: (x, -y).
constexpr int kX0[] = {1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3};
constexpr int kY0[] = {1, 2, 3, 4, 1, 2, 3, 4, 2, 3, 4, 5};

}  // namespace

FacePixel step(int level, FacePixel p, int dx, int dy) {
  const int64_t n = int64_t{1} << level, x = p.x + dx, y = p.y + dy;
  // which of the 3 x 3 faces around this one, -1 to 1 each
  const int across_x = x < 0 ? -1 : x >= n, across_y = y < 0 ? -1 : y >= n;
  if (across_x == 0 && across_y == 0) return {p.face, x, y};
  const int64_t q = p.face % 4, east = (q + 1) % 4, west = (q + 3) % 4, opposite = (q + 2) % 4;
  // most faces continue in the same directions; those that meet at a pole are turned
  const auto straight = [&](int64_t face) { return FacePixel{face, x & (n - 1), y & (n - 1)}; };
  const FacePixel none = {-1, 0, 0};
  switch (3 * across_x + across_y) {
    case 4:  // north corner
      if (p.face < 4) return {opposite, 2 * n - 1 - x, 2 * n - 1 - y};
      return p.face < 8 ? none : straight(q);
    case 3:  // north-east edge
      if (p.face < 4) return {east, y, 2 * n - 1 - x};
      return straight(p.face < 8 ? q : 4 + east);
    case 1:  // north-west edge
      if (p.face < 4) return {west, 2 * n - 1 - y, x};
      return straight(p.face < 8 ? west : 4 + q);
    case -3:  // south-west edge
      if (p.face >= 8) return {8 + west, y, -1 - x};
      return straight(p.face < 4 ? 4 + q : 8 + west);
    case -1:  // south-east edge
      if (p.face >= 8) return {8 + east, -1 - y, x};
      return straight(p.face < 4 ? 4 + east : 8 + q);
    case -4:  // south corner
      if (p.face >= 8) return {8 + opposite, -1 - x, -1 - y};
      return p.face < 4 ? straight(8 + q) : none;
    case 2:  // east corner
      return p.face / 4 == 1 ? straight(4 + east) : none;
    default:  // west corner
      return p.face / 4 == 1 ? straight(4 + west) : none;
  }
}

LonLat centre(int level, const FacePixel& p) {
  constexpr double kQuarter = M_PI / 4, kDegrees = 180 / M_PI;
  const double n = static_cast<double>(int64_t{1} << level);
  const double xr = kX0[p.face] + (p.x + 0.5) / n, yr = (p.y + 0.5) / n - kY0[p.face];
  const double xs = (xr - yr - 1) * kQuarter, ys = (xr + yr) * kQuarter, height = std::abs(ys);

  double lon = xs, lat;
  if (height <= kQuarter) {
    lat = 90 - std::acos(8 / (3 * M_PI) * ys) * kDegrees;
  } else {
    const double along = std::fmod(xs, M_PI / 2) - kQuarter;
    lon -= (height - kQuarter) / (height - M_PI / 2) * along;
    const double from_pole = 2 - std::abs(xr + yr), drop = from_pole * from_pole / 3;  // 1 - |z|
    const double colatitude = drop < kNearPole ? 2 * std::asin(from_pole / std::sqrt(6.0))
                                               : std::acos(std::min(1.0, 1 - drop));
    lat = std::copysign(90 - colatitude * kDegrees, ys);
  }
  lon = std::fmod(lon * kDegrees, 360.0);
  if (lon < 0) lon += 360;
  return {lon < 360 ? lon : 0.0, lat};
}

FacePixel pixel_at(int level, double lon, double lat) {
  constexpr double kDegree = M_PI / 180;
  const int64_t n = int64_t{1} << level;
  const auto inside = [n](double v) {
    return std::clamp<int64_t>(static_cast<int64_t>(std::floor(v * static_cast<double>(n))), 0,
                               n - 1);
  };
  const double east = wrap_degrees(lon), z = std::sin(lat * kDegree);
  if (std::abs(z) > 2.0 / 3.0) {
    const auto quadrant = std::min<int64_t>(static_cast<int64_t>(east / 90), 3);
    const double from_pole = std::sqrt(6.0) * std::sin((90 - std::abs(lat)) * (kDegree / 2));
    const double t = ((east - 90.0 * static_cast<double>(quadrant)) / 45 - 1) * from_pole;
    // height above the face's south corner
    const double up = z > 0 ? 2 - from_pole : from_pole;
    return {z > 0 ? quadrant : 8 + quadrant, inside((up + t) / 2), inside((up - t) / 2)};
  }
  const double u = east / 45, w = 1.5 * z;
  const TurnedPoint<double> point = {(u + w + 1) / 2, (w - u - 1) / 2};
  const int64_t face = point.face();
  // face 4 lies at both ends
  const int turn = face == 4 && point.x > 2 ? 4 : 0;
  return {face, inside(point.x - kX0[face] - turn), inside(point.y + kY0[face] + turn)};
}

}  // namespace halcyon::healpix::detail
