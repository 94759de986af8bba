// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "bench/support/layer.h"

// The layers written out with ATen from their parameters by key: differentiable, obviously right,
// slow. What the benchmarks verify their results against.
namespace halcyon::bench::reference {

at::Tensor linear(const Named& p, const std::string& key, const at::Tensor& x);

// softmax(q k^T / sqrt(d)) v. q (..., G, d), k and v (..., L, d); only where valid (..., L), zero
// where nothing is.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const std::optional<at::Tensor>& valid = {});

// Rows of ragged segments, padded to the longest.
struct Padding {
  at::Tensor index;  // (P * L,) rows; any row where there is none
  at::Tensor valid;  // (P, L)
};
Padding padding(const at::Tensor& cu_seqlens);

// q (P, H, d); keys and values (N, n_kv * d): each pixel attends to its own rows.
at::Tensor ragged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                            const at::Tensor& cu_seqlens, int64_t n_kv);

// x (N, L, C) with RMS-normalised queries and keys.
at::Tensor spatial_attention(const Named& p, const std::string& prefix, const at::Tensor& x,
                             int64_t heads);
// x (B, T, X, C), causal with rope.
at::Tensor temporal_attention(const Named& p, const std::string& prefix, const at::Tensor& x,
                              int64_t heads, bool linear_attention);
// h (B, T, X, C); q_heads * d_head is the width of q_proj.
at::Tensor cross_attention(const Named& p, const std::string& prefix, const at::Tensor& h,
                           const at::Tensor& tokens, const at::Tensor& cu_seqlens, int64_t q_heads,
                           int64_t kv_heads);

}  // namespace halcyon::bench::reference
