// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "halcyon/ops/cpu_level.h"

// The raw compute of norm_modulate and gated_residual; arguments are checked by the caller. States
// (B, ..., C) are float, bfloat16 or double and contiguous, conditions (B, C) any. Each is one pass
// over the states; sums over rows run in chunks of a fixed size, in order.
namespace halcyon::adaln_detail {

// Of ATen operators, on any device and differentiable any number of times.
at::Tensor composed_modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale);
at::Tensor composed_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                         double eps);
at::Tensor composed_gate(const at::Tensor& residual, const at::Tensor& branch,
                         const at::Tensor& gate);

struct Normed {
  at::Tensor out, mean, inverse;  // of the rows (B, rows), in the type of the sums
};
// factor is 1 + scale.
Normed norm_forward(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& factor,
                    double eps, CpuLevel level = cpu_level());

struct NormGradients {
  at::Tensor x, shift, factor;  // shift and factor in the type of the sums
};
NormGradients norm_backward(const at::Tensor& grad_out, const at::Tensor& x,
                            const at::Tensor& factor, const at::Tensor& mean,
                            const at::Tensor& inverse, CpuLevel level = cpu_level());

// branch in the type of residual, or bfloat16 beside float.
at::Tensor gate_forward(const at::Tensor& residual, const at::Tensor& branch,
                        const at::Tensor& gate, CpuLevel level = cpu_level());

struct GateGradients {
  at::Tensor branch, gate;  // gate in the type of the sums
};
GateGradients gate_backward(const at::Tensor& grad_out, const at::Tensor& branch,
                            const at::Tensor& gate, CpuLevel level = cpu_level());

}  // namespace halcyon::adaln_detail
