// SPDX-License-Identifier: Apache-2.0
#include "halcyon/plots/map_area.h"

#include <ATen/ops/remainder.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace halcyon::plots {
namespace {

constexpr double kRadian = std::numbers::pi / 180;

// Distance from the pole in the stereographic plane, of the distance from the pole in degrees.
double radius(double colatitude) {
  return std::tan(colatitude * kRadian / 2);
}

}  // namespace

Box bounding_box(const at::Tensor& lon, const at::Tensor& lat) {
  const double south = lat.min().item<double>(), north = lat.max().item<double>();
  // the widest gap between neighbours on the circle stays outside
  const at::Tensor sorted = std::get<0>(at::remainder(lon, 360.0).sort()).contiguous();
  const double* at = sorted.const_data_ptr<double>();
  const int64_t size = sorted.numel();
  double gap = at[0] + 360 - at[size - 1], west = at[0];
  for (int64_t i = 1; i < size; ++i)
    if (at[i] - at[i - 1] > gap) {
      gap = at[i] - at[i - 1];
      west = at[i];
    }
  return {west, west + 360 - gap, south, north};
}

MapArea map_area(Box box) {
  if (box.east < box.west) box.east += 360;
  const double thin_lon = std::max(0.0, 4 - (box.east - box.west)) / 2;
  const double thin_lat = std::max(0.0, 4 - (box.north - box.south)) / 2;
  box = {box.west - thin_lon, box.east + thin_lon, std::max(-90.0, box.south - thin_lat),
         std::min(90.0, box.north + thin_lat)};
  if (box.east - box.west > 350) {
    // a global field is shown from the date line to the date line
    const double centre =
        std::abs(box.west) < 10 || box.east - box.west >= 360 ? 0 : box.west + 180;
    box.west = centre - 180;
    box.east = centre + 180;
  }
  MapArea area;
  area.box = box;
  area.south = box.south + box.north < 0;
  const double middle = std::abs(box.south + box.north) / 2, half = (box.east - box.west) / 2;
  const bool one_hemisphere = box.south > 5 || box.north < -5;
  area.polar = one_hemisphere && middle >= (half <= 80 ? 30 : 50);
  if (!area.polar) {
    area.lower_left_lon = box.west;
    area.lower_left_lat = box.south;
    area.upper_right_lon = box.east;
    area.upper_right_lat = box.north;
    area.aspect = (box.north - box.south) / (box.east - box.west);
    return area;
  }
  // The rectangle around the box in the plane: the pole at the origin, the middle meridian pointing
  // away from it towards the equator (down on northern maps, up on southern ones).
  const double inner = radius(90 - (area.south ? -box.south : box.north));
  const double outer = radius(90 - (area.south ? -box.north : box.south));
  const double turn = std::cos(half * kRadian);
  const double x = half >= 90 ? outer : outer * std::sin(half * kRadian);
  const double near = turn < 0 ? outer * turn : inner * turn, far = outer;
  auto corner = [&](double east, double away, double& lon, double& lat) {
    const double distance = std::hypot(east, away);
    lon = area.middle_lon() + std::atan2(east, away) / kRadian;
    lat = (90 - 2 * std::atan(distance) / kRadian) * (area.south ? -1 : 1);
  };
  corner(-x, area.south ? near : far, area.lower_left_lon, area.lower_left_lat);
  corner(x, area.south ? far : near, area.upper_right_lon, area.upper_right_lat);
  area.aspect = (far - near) / (2 * x);
  return area;
}

double grid_increment(double span) {
  for (const double step : {0.5, 1.0, 2.0, 5.0, 10.0, 20.0})
    if (span / step <= 8) return step;
  return span > 240 ? 60 : 30;
}

}  // namespace halcyon::plots
