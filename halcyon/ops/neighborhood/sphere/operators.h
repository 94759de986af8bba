// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/sphere/pixel_lists.h"

namespace halcyon::neighborhood {

// Through torch's dispatcher (halcyon::_neighborhood_healpix); (B, X, H, e).
at::Tensor sphere_operator(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const PixelWindow& window, double scale);

}  // namespace halcyon::neighborhood
