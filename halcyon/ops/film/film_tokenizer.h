// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace halcyon {

// Observations to tokens by feature-wise linear modulation (Perez et al. 2018, arXiv:1709.07871):
//
//   cond = [float_metadata, embed_table[obs_type], channel_embedding[channel],
//           platform_embedding[platform]]
//   h = SiLU(LayerNorm(cond weight1^T + bias1));  (alpha, beta) = halves of h weight2^T + bias2
//   token = alpha * obs + beta
//
// obs (N,), float_metadata (N, M), obs_type, channel, platform (N,) int32 or int64; tables
// (rows, width); weight1 (hidden, width of cond), weight2 (2 * out, hidden). platform and
// platform_embedding are given together or not at all (a platform without a table is ignored).
// Returns (N, out) in the promoted type of obs and the weights; sums are in float32, in double when
// any input is double. Ids outside their table are an Error. Differentiable in every floating
// input; on a CPU the backward recomputes the layers, so that nothing of the hidden width is kept.
at::Tensor film_tokenizer(const at::Tensor& obs, const at::Tensor& float_metadata,
                          const at::Tensor& obs_type, const at::Tensor& channel,
                          const std::optional<at::Tensor>& platform, const at::Tensor& embed_table,
                          const at::Tensor& channel_embedding,
                          const std::optional<at::Tensor>& platform_embedding,
                          const at::Tensor& weight1, const at::Tensor& bias1,
                          const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                          const at::Tensor& weight2, const at::Tensor& bias2, double eps = 1e-5);

}  // namespace halcyon
