// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "halcyon/nn/layers.h"
#include "halcyon/nn/spatial_attention.h"

namespace halcyon {

// Multi-head self-attention over the tokens of a sequence: the backend "timm". One Linear(C -> 3C)
// holds q, k, v in this order with the heads inside; q and k may be normalised per head, by RMSNorm
// or LayerNorm. Keys attn_op.{qkv,proj}.{weight,bias} and, with qk_norm_affine,
// attn_op.{q_norm,k_norm}.weight (and .bias for LayerNorm).
class SelfAttentionImpl : public SpatialAttentionBase {
 public:
  SelfAttentionImpl(int64_t hidden_size, int64_t num_heads, double attn_drop_rate = 0.0,
                    double proj_drop_rate = 0.0,
                    const std::optional<std::string>& qk_norm_type = std::nullopt,
                    bool qk_norm_affine = true, bool is_causal = false);
  explicit SelfAttentionImpl(const SpatialAttentionOptions& options);

  // x (N, L, C) -> (N, L, C). attn_mask broadcasts to (N, H, L, L): boolean (true attends) or added
  // to the scores. It excludes is_causal.
  at::Tensor forward(const at::Tensor& x,
                     const std::optional<at::Tensor>& attn_mask = std::nullopt);
  at::Tensor attend(const at::Tensor& x, const SpatialAttentionKwargs& kwargs) override {
    return forward(x, kwargs.attn_mask);
  }

 protected:
  SelfAttentionImpl(const std::string& name, const SpatialAttentionOptions& options);

  // What may be asked for: x (N, L, C) is in order, attn_mask may be undefined.
  virtual void check_call(const at::Tensor& x, const at::Tensor& attn_mask) const;
  // What the linear layer gives, (N, L, 3, H, d), and attn_mask or undefined -> (N, L, H, d).
  virtual at::Tensor mix(const at::Tensor& qkv, const at::Tensor& attn_mask) const;
  // Its q, k and v, each (N, L, H, d), the first two normalised as the options say.
  std::array<at::Tensor, 3> normalised(const at::Tensor& qkv) const;
  // The rate at which weights drop now.
  double weight_dropout() const { return is_training() ? options_.attn_drop_rate : 0; }

 private:
  SpatialAttentionOptions options_;
  int64_t d_head_;
  nn::Linear qkv_{nullptr}, proj_{nullptr};
  // The norms of q and k: that of qk_norm_type, where it has weights.
  template <class Norm>
  struct Norms {
    Norm q{nullptr}, k{nullptr};
  };
  bool has_rms_norm() const;
  double norm_eps() const;
  Norms<nn::RMSNorm> rms_norms_;
  Norms<nn::LayerNorm> layer_norms_;
};
TORCH_MODULE(SelfAttention);

}  // namespace halcyon
