// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

// Observations as they lie on the sphere: many pixels have none, most few, some many.
namespace halcyon::bench {

// How many each pixel has, int64 (pixels,), in random order: a share of the pixels is empty, the
// others follow an exponential distribution cut off at `longest`; the sum is `rows` exactly.
at::Tensor ragged_counts(int64_t pixels, int64_t rows, int64_t longest = 200,
                         double empty_share = 0.45);

// The pixel of each observation in random order, int64 (rows,).
at::Tensor scattered(const at::Tensor& counts);

}  // namespace halcyon::bench
