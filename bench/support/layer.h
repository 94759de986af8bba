// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>

#include <map>

#include "bench/support/harness.h"

namespace halcyon::bench {

using Named = std::map<std::string, at::Tensor>;

// A layer, forward and backward.
struct Layer {
  Named leaves;  // floating inputs and parameters: what gets a gradient
  std::function<at::Tensor()> forward;
  // The same from copies of the leaves by readable, differentiable steps; it may put leaves of its
  // own in their place.
  std::function<at::Tensor(Named&)> reference;
  double flops = 0;  // of a forward; a backward is counted as two, recomputation not at all
  double bytes = 0, backward_bytes = 0;  // that must move, where that is the bound
};

// Largest errors allowed, relative to the largest value.
struct Bounds {
  double out = 2e-5, gradient = 2e-4;
};
inline constexpr Bounds kFp32{}, kBf16{2e-2, 4e-2};

// One pass in fp32, or in bf16 by autocast over fp32 leaves.
Case layer_case(const Layer& layer, bool backward, at::ScalarType type, Bounds bounds);

// Which of the four passes there are, and their bounds in bf16.
struct Passes {
  bool backward = true, bf16 = true;
  Bounds bf16_bounds = kBf16;
};
// Adds name/{fwd,fwd_bwd}/{fp32,bf16}.
void add_layer(const std::string& name, const std::function<Layer()>& make, Passes passes = {});

// Its parameters by key.
Named parameters_of(const torch::nn::Module& module);

}  // namespace halcyon::bench
