// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "halcyon/nn/layers.h"

namespace halcyon {

// Multi-head self-attention among all points of a HEALPix grid, O(N^2) in the points. Keys
// qkv_proj.{weight,bias} (q, k, v in this order, the heads inside) and out_proj.{weight,bias}.
class SpatialSelfAttentionImpl : public torch::nn::Module {
 public:
  // attn_backend "sdpa" is torch's fused scaled_dot_product_attention, "manual" writes the steps
  // out, "auto" takes "sdpa". dropout acts on the attention weights, in training.
  SpatialSelfAttentionImpl(int64_t embed_dim, int64_t num_heads, double dropout = 0.0,
                           bool bias = true, const std::string& attn_backend = "auto");

  // x (B, N, embed_dim) -> (B, N, embed_dim).
  at::Tensor forward(const at::Tensor& x);

 private:
  int64_t embed_dim_, num_heads_;
  double dropout_;
  bool manual_;
  nn::Linear qkv_proj_{nullptr}, out_proj_{nullptr};
};
TORCH_MODULE(SpatialSelfAttention);

}  // namespace halcyon
