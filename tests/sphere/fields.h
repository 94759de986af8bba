// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <tuple>

#include "halcyon/sphere/regrid.h"

namespace halcyon::test {

// A smooth field on the sphere, 1 + x + y z + z^3 of the unit vector; its mean is 1.
inline at::Tensor smooth(const at::Tensor& lon, const at::Tensor& lat) {
  const double degree = M_PI / 180;
  const auto r = (lat * degree).cos(), z = (lat * degree).sin();
  return 1 + r * (lon * degree).cos() + r * (lon * degree).sin() * z + z.pow(3);
}

inline std::tuple<at::Tensor, at::Tensor> points_of(const Grid& grid) {
  if (const auto* region = std::get_if<Region>(&grid)) return region->centres();
  return std::get<LatLonGrid>(grid).points();
}

inline at::Tensor smooth(const Grid& grid) {
  const auto [lon, lat] = points_of(grid);
  return smooth(lon, lat);
}

// (lon, lat) spread evenly over the sphere.
inline std::tuple<at::Tensor, at::Tensor> random_points(int64_t count) {
  const auto lon = at::rand({count}, at::kDouble) * 360 - 180;
  return {lon, (at::rand({count}, at::kDouble) * 2 - 1).asin() * (180 / M_PI)};
}

}  // namespace halcyon::test
