// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/healpix_pixel.h"

#include <algorithm>
#include <cmath>

namespace halcyon::healpix::detail {
namespace {

// The south corner of each face in the turned plane: (x, -y).
constexpr int kX0[] = {1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3};
constexpr int kY0[] = {1, 2, 3, 4, 1, 2, 3, 4, 2, 3, 4, 5};

// Where the caps begin: asin(2/3).
constexpr double kCapLatitude = 41.810314895778596;

// The quarter of the sphere that holds a longitude and the degrees to both its meridians. Each is
// exact to its own last bit, so that a point just west of a meridian stays west of it.
struct Quarter {
  int64_t number;
  double from_west, to_east;
};

Quarter quarter_of(double lon) {
  if (std::abs(lon) >= 360) lon = std::fmod(lon, 360.0);
  const double turn = std::abs(lon);
  if (lon >= 0) {
    const int64_t passed = (turn >= 90) + (turn >= 180) + (turn >= 270);
    const double from_west = turn - 90.0 * static_cast<double>(passed);
    return {passed, from_west, 90 - from_west};
  }
  // westwards of meridian 0; a quarter's own meridian is its western one
  const int64_t passed = (turn > 90) + (turn > 180) + (turn > 270);
  const double to_east = turn - 90.0 * static_cast<double>(passed);
  return {3 - passed, 90 - to_east, to_east};
}

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
  const int64_t n = int64_t{1} << level, last = n - 1;
  const double width = static_cast<double>(n), height = std::abs(lat);
  const Quarter q = quarter_of(lon);
  if (height > kCapLatitude) {
    // sqrt(3 (1 - |z|)): 0 at the pole, 1 where the cap ends
    const double from_pole = std::sqrt(6.0) * std::sin((90 - height) * (M_PI / 360));
    const double scale = from_pole * width / 90;
    // lines that begin on the western and on the eastern meridian, counted from the pole
    const auto west = std::min(static_cast<int64_t>(q.from_west * scale), last);
    const auto east = std::min(static_cast<int64_t>(q.to_east * scale), last);
    return lat > 0 ? FacePixel{q.number, last - east, last - west}
                   : FacePixel{8 + q.number, west, east};
  }
  // lines that rise and that fall eastwards, counted from the quarter's western meridian
  const double middle = 0.5 + q.from_west / 90, z = 0.75 * std::sin(lat * (M_PI / 180));
  const auto rising = static_cast<int64_t>((middle - z) * width);
  const auto falling = static_cast<int64_t>((middle + z) * width);
  const int64_t r = (rising >> level) + q.number, f = (falling >> level) + q.number;
  const int64_t face = r == f ? 4 + r % 4 : r < f ? r % 4 : 8 + f % 4;
  return {face, falling & last, last - (rising & last)};
}

}  // namespace halcyon::healpix::detail
