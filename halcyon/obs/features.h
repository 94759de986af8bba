// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "halcyon/obs/table.h"

// What the model is told about an observation besides its value.
namespace halcyon::obs {

// Hours in [0, 24): the UTC hour plus lon / 15, modulo 24, in float32. lon (N,) floating degrees,
// time_ns (N,) int64. The second of the day is that of the time rounded down.
at::Tensor local_solar_time(const at::Tensor& lon, const at::Tensor& time_ns);

// What features are made of. target_time_sec may be a scalar; the others are (N,). Times int64,
// since 1970; floating columns are used as float32, NaN where one does not apply. Degrees, metres,
// hPa.
struct Metadata {
  at::Tensor target_time_sec, time_ns;
  at::Tensor lon, lat, height, pressure, scan_angle, sat_zenith_angle, sol_zenith_angle;
};

// HealDA's features, float32 (N, layout) on lon's device. With fo(x, n) = sin kx for k = 1..n, then
// cos kx; dt the observation's time after the target in days; h, p height / 60 km and pressure /
// 1100 hPa, clamped to 0..1:
//   28: fo(2 pi LST/24, 2), dt, dt^2, fo(2 pi h, 4), fo(2 pi p, 4), scan/50, (scan/50)^2,
//       cos sat, cos^2 sat, cos sol, sin sol; NaN becomes 0
//   30: fo(2 pi LST/24, 2), dt, dt^2, sin dt, cos dt, sin lat, cos lat, then 20 that are
//       conventional (height is not NaN): fo(2 pi h, 5), fo(2 pi p, 5)
//       or satellite: fo(2 pi scan/50, 3), fo(2 pi sat/90, 4), fo(2 pi sol/180, 3); NaN stays
//   50: the first 10 of 30, then 20 satellite and 20 conventional ones, zero where the row is of
//       the other kind; NaN stays
// Results do not depend on the number of threads.
at::Tensor float_metadata(const Metadata& in, int64_t layout = 30);

// A way to make features from a table, by name. context.level is that of the model's pixels.
struct FeatureContext {
  int level = 0;
};
struct Layout {
  std::string name, description;
  int64_t width;
  // target_time_sec int64 (rows,) -> float32 (rows, width)
  std::function<at::Tensor(const Table& table, const at::Tensor& target_time_sec,
                           const FeatureContext& context)>
      make;
};
// Called before main; the name must be new. "28", "30" and "50" are there.
bool register_layout(Layout layout);
// Error(argument) with all names for an unknown one.
const Layout& feature_layout(std::string_view name);
std::vector<std::string> feature_layouts();

// The columns of a table as Metadata; angles that it lacks are NaN.
Metadata metadata_of(const Table& table, const at::Tensor& target_time_sec);

}  // namespace halcyon::obs
