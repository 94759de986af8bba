// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/ops/pixel_attention/packing.h"

namespace halcyon {

// Ragged grouped-query attention of each pixel over its own observations.
//
//   Q (P, n_q_heads, d), tokens (N, D), W_k and W_v (n_kv_heads * d, D), B_k and B_v
//   (n_kv_heads * d,), cu_seqlens_k (P + 1,) int32 or int64 with cu_seqlens_k[P] = N
//
// Pixel p owns tokens[cu[p] : cu[p + 1]]; query head h uses key and value head
// h / (n_q_heads / n_kv_heads): softmax_j(scale * q . (W_k tok_j)) weights W_v tok_j + B_v. The
// output is like Q, exactly zero in pixels without observations. scale defaults to 1/sqrt(d). B_k
// cancels in the softmax: it is checked, has no effect and gets a zero gradient. max_seqlen_k and
// group_map change no number. Floating types may be mixed; sums are in float32, in double when any
// input is double, so force_fp32 changes nothing on a CPU. Differentiable in all floating inputs.
// Reruns are bit-identical, whatever the number of threads.
at::Tensor pixel_attention(const at::Tensor& Q, const at::Tensor& tokens, const at::Tensor& W_k,
                           const at::Tensor& W_v, const at::Tensor& cu_seqlens_k,
                           int64_t max_seqlen_k, int64_t n_kv_heads = 1,
                           std::optional<double> scale = {},
                           const std::optional<at::Tensor>& B_k = {},
                           const std::optional<at::Tensor>& B_v = {}, bool force_fp32 = false,
                           const std::optional<PixelGroupMap>& group_map = {});

// The same by plain loops, forward only, float or double: what every fast path is tested against.
at::Tensor pixel_attention_reference(const at::Tensor& Q, const at::Tensor& tokens,
                                     const at::Tensor& W_k, const at::Tensor& W_v,
                                     const at::Tensor& cu_seqlens_k, int64_t n_kv_heads,
                                     double scale, const std::optional<at::Tensor>& B_v = {});

}  // namespace halcyon
