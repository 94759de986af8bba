// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "halcyon/ops/neighborhood/sphere/pixel_lists.h"

namespace halcyon::neighborhood {

// neighborhood_attention_healpix of some queries of a region, on a CPU: k (B, X, G, d) and
// v (B, X, G, e) are of window.region, q (B, Q, H, d) of its pixels [begin, begin + Q). Arguments
// are checked by the caller. Differentiable once.
at::Tensor part_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const PixelWindow& window, int64_t begin, double scale);

}  // namespace halcyon::neighborhood
