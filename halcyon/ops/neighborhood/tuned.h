// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/backends.h"

namespace halcyon::neighborhood {

// forward_tiled and backward_tiled with the tiling that the autotuner found, where it is on; it
// finds it in the first call for a problem.
Output forward_tuned(const Inputs& in);
Gradients backward_tuned(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                         const at::Tensor& delta);

}  // namespace halcyon::neighborhood
