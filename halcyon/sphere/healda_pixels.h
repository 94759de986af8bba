// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "halcyon/sphere/healpix.h"

namespace halcyon::healpix::detail {

// Rule::healda: lon and lat are contiguous, of one shape and one dtype (float32 or float64), finite
// and on the sphere. Returns int64 pixels.
at::Tensor healda_pixels(int level, const at::Tensor& lon, const at::Tensor& lat, Order order);

}  // namespace halcyon::healpix::detail
