// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/area.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

#include "halcyon/base/error.h"

namespace halcyon::state {

at::Tensor area_weights(const Grid& grid) {
  const int64_t size = size_of(grid);
  if (std::holds_alternative<Region>(grid))
    return at::full({size}, 1.0 / static_cast<double>(size), at::kDouble);
  const at::Tensor weights = (std::get<1>(points(grid)) * (std::numbers::pi / 180)).cos();
  return weights / weights.sum();
}

at::Tensor inside(const Grid& grid, const Box& box) {
  HALCYON_CHECK(std::isfinite(box.west) && std::isfinite(box.east) && box.south <= box.north,
                "inside", "expected a box with finite sides and south <= north, got {} to {} N",
                box.south, box.north);
  const auto [lon, lat] = points(grid);
  // eastwards from the western side; a box round the whole circle holds every longitude
  const double width = box.east - box.west;
  const at::Tensor east = at::remainder(lon - box.west, 360.0);
  const double limit = width >= 360 ? 360 : std::fmod(std::fmod(width, 360) + 360, 360);
  constexpr double kTolerance = 1e-9;
  const at::Tensor in_width = (east <= limit + kTolerance).logical_or(east >= 360 - kTolerance);
  return in_width.logical_and(lat >= box.south - kTolerance)
      .logical_and(lat <= box.north + kTolerance);
}

std::tuple<at::Tensor, at::Tensor> points(const Grid& grid) {
  if (const auto* region = std::get_if<Region>(&grid)) return region->centres();
  return std::get<LatLonGrid>(grid).points();
}

}  // namespace halcyon::state
