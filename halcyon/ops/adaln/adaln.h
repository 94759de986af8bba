// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

// Adaptive layer norm with zero initialisation (Peebles and Xie 2023, arXiv:2212.09748): what
// stands around each branch of a transformer block. States are (B, ..., C) of rank 3 or 4, their
// conditions (B, C), broadcast over the axes in the middle. The result has the type that all of
// them promote to and is computed in float, in double for double. Differentiable in every tensor,
// twice too; the same bits for every number of threads.
namespace halcyon {

// shift + x * (1 + scale).
at::Tensor modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale);

// modulate() of the layer norm of x over its last axis, (x - mean) / sqrt(variance + eps): one pass
// over memory on a CPU, and one in the backward.
at::Tensor norm_modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                         double eps);

// residual + gate * branch, residual and branch of equal shape: one pass over memory on a CPU, and
// one in the backward.
at::Tensor gated_residual(const at::Tensor& residual, const at::Tensor& branch,
                          const at::Tensor& gate);

}  // namespace halcyon
