// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace halcyon {

// Attention of each pixel over its own frames. q, k, v (B, T, X, H, d) -> (B, T, X, H, d).
//
//   a_ij = q_i . k_j / sqrt(d) over the frames j that i may see; linear: out_i = sum_j a_ij v_j,
//   with no normalisation; otherwise the softmax of a_i weights v.
//
// causal hides j > i; window (only with causal, >= 1) also hides i - j >= window, so it counts the
// frame itself. With rope_cos and rope_sin (T, d), see rope.h, q and k are rotated first. Half and
// bfloat16 are computed in float32. Differentiable in q, k and v.
//
// On a CPU no T x T matrix is held but for short T: the softmax is computed online over blocks of
// keys (Milakov & Gimelshein 2018, arXiv:1805.02867). Long linear attention is the recurrence of
// Katharopoulos et al. 2020 (arXiv:2006.16236) by blocks, at a cost of T d^2 rather than T^2 d;
// under a window it adds only, never subtracts, so that a large past leaves no error behind
// (form.h).
at::Tensor temporal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              bool linear, bool causal, std::optional<int64_t> window = {},
                              const std::optional<at::Tensor>& rope_cos = {},
                              const std::optional<at::Tensor>& rope_sin = {});

// The same of q, k and v side by side, (B, T, X, 3, H, d): their gradient needs no copy to join it.
at::Tensor temporal_attention(const at::Tensor& qkv, bool linear, bool causal,
                              std::optional<int64_t> window = {},
                              const std::optional<at::Tensor>& rope_cos = {},
                              const std::optional<at::Tensor>& rope_sin = {});

// attn (B, T_q, T_k, X, H) with the entries that a causal frame may not see set to 0 (linear) or to
// -infinity (for a softmax). window as above. Differentiable in attn.
at::Tensor mask_causal(const at::Tensor& attn, bool linear = true,
                       std::optional<int64_t> window = {});

}  // namespace halcyon
