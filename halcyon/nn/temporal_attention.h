// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "halcyon/nn/layers.h"

namespace halcyon {

struct TemporalAttentionOptions {
  int64_t hidden_size = 0, num_heads = 0;
  bool use_rope = true, is_causal = false;
  bool linear_attention = true;               // no softmax and no normalisation of any kind
  std::optional<int64_t> causal_window = {};  // frames that a frame sees, itself counted
};

// Self-attention of each pixel over its own frames, with rotary positions. Keys qkv.{weight,bias}
// (q, k, v in this order, the heads inside) and proj.{weight,bias}.
class TemporalAttentionImpl : public torch::nn::Module {
 public:
  explicit TemporalAttentionImpl(TemporalAttentionOptions options);

  // x (B, T, X, C) -> the same shape. rope_cos and rope_sin (T, d_head), needed with use_rope.
  at::Tensor forward(const at::Tensor& x, const std::optional<at::Tensor>& rope_cos = std::nullopt,
                     const std::optional<at::Tensor>& rope_sin = std::nullopt);

 private:
  TemporalAttentionOptions options_;
  int64_t d_head_;
  nn::Linear qkv_{nullptr}, proj_{nullptr};
};
TORCH_MODULE(TemporalAttention);

}  // namespace halcyon
