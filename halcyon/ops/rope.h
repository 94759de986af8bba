// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

// Rotary position embedding in one dimension (Su et al. 2021, arXiv:2104.09864), pairs being
// adjacent channels.
namespace halcyon {

// (cos, sin), each float32 (seq_len, head_dim): the angle of position p and channels 2k, 2k + 1 is
// p * theta^(-2k / head_dim). head_dim even and positive, seq_len >= 0, theta > 0.
std::tuple<at::Tensor, at::Tensor> rope_tables(int64_t head_dim, int64_t seq_len,
                                               double theta = 100.0);

// Rotates each pair (a, b) of x (..., T, head_dim) to (a cos - b sin, a sin + b cos). cos and sin
// are (T, head_dim). Half and bfloat16 are rotated in float32 and cast back, double in double with
// the tables as they are. time_dim names the axis of the positions. Differentiable in x.
at::Tensor apply_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                      int64_t time_dim = -2);

}  // namespace halcyon
