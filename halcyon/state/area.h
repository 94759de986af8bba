// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "halcyon/state/fields.h"

namespace halcyon::state {

// What each point stands for, float64 (X), summing to 1: the cosine of latitude on a
// latitude-longitude grid (the usual weight in verification), the same for every HEALPix pixel.
at::Tensor area_weights(const Grid& grid);

// bool (X): the points in the box, its edges included.
at::Tensor inside(const Grid& grid, const Box& box);

// (lon, lat) in degrees of every point, float64 (X).
std::tuple<at::Tensor, at::Tensor> points(const Grid& grid);

}  // namespace halcyon::state
