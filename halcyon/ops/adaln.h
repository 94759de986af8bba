// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

// Adaptive layer norm with zero initialisation (Peebles and Xie 2023, arXiv:2212.09748): what
// stands around each branch of a transformer block.
namespace halcyon {

// shift + x * (1 + scale). x (B, ..., C) of rank 3 or 4, shift and scale (B, C), broadcast over the
// axes in the middle. Result like x; differentiable in all three.
at::Tensor modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale);

// residual + gate * branch. residual and branch (B, ..., C) of rank 3 or 4 and equal shape, gate
// (B, C). Differentiable in all three.
at::Tensor gated_residual(const at::Tensor& residual, const at::Tensor& branch,
                          const at::Tensor& gate);

}  // namespace halcyon
