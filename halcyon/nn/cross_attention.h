// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <any>
#include <functional>
#include <memory>
#include <optional>

#include "halcyon/nn/layers.h"
#include "halcyon/ops/pixel_attention/packing.h"

namespace halcyon {

// The cross-attention slot of a block; kwargs are the caller's, opaque to the block and to
// VideoDiT.
class CrossAttentionModuleBase : public torch::nn::Module {
 public:
  using torch::nn::Module::Module;
  // hidden_states (B, T, X, C) -> the same shape.
  virtual at::Tensor attend(const at::Tensor& hidden_states, const std::any& kwargs) = 0;
  // The kwargs of pixels first .. first + count of B * T * X alone, so that they can be attended to
  // as (1, 1, count, C); without a value where this cannot be done.
  virtual std::any kwargs_of_pixels(const std::any& kwargs, int64_t first, int64_t count) const;
};

// Called once per block, so that every block owns its weights.
using CrossAttentionFactory = std::function<std::shared_ptr<CrossAttentionModuleBase>()>;

// The kwargs of PixelCrossAttention.
struct PixelCrossAttentionKwargs {
  at::Tensor tokens;        // (N, token_dim), grouped by pixel
  at::Tensor cu_seqlens_k;  // (B * T * X + 1,) int32 or int64
  int64_t max_seqlen_k = 0;
  std::optional<PixelGroupMap> group_map = {};
};

struct PixelCrossAttentionOptions {
  int64_t hidden_size = 0, token_dim = 0, n_q_heads = 0, n_kv_heads = 0, d_head = 0;
  bool use_proj_bias = false;  // of q_proj, v_proj and out_proj; k_proj never has one
};

// Each pixel attends to its own observations: grouped-query attention over ragged segments of
// tokens. A pixel without tokens gets out_proj's bias, zero without one. State dict keys: the
// weight of q_proj, k_proj, v_proj and out_proj, and with use_proj_bias the bias of all but k_proj.
class PixelCrossAttentionImpl : public CrossAttentionModuleBase {
 public:
  explicit PixelCrossAttentionImpl(PixelCrossAttentionOptions options);

  // hidden_states (B, T, X, C), pixels numbered row-major; pixel p owns
  // tokens[cu_seqlens_k[p] : cu_seqlens_k[p + 1]]. max_seqlen_k and group_map are hints that do not
  // change the numbers.
  at::Tensor forward(const at::Tensor& hidden_states, const at::Tensor& tokens,
                     const at::Tensor& cu_seqlens_k, int64_t max_seqlen_k,
                     const std::optional<PixelGroupMap>& group_map = std::nullopt);
  at::Tensor attend(const at::Tensor& hidden_states, const std::any& kwargs) override;
  std::any kwargs_of_pixels(const std::any& kwargs, int64_t first, int64_t count) const override;

 private:
  PixelCrossAttentionOptions options_;
  nn::Linear q_proj_{nullptr}, k_proj_{nullptr}, v_proj_{nullptr}, out_proj_{nullptr};
};
TORCH_MODULE(PixelCrossAttention);

// A factory that builds a PixelCrossAttention with these options for every block.
CrossAttentionFactory pixel_cross_attention(const PixelCrossAttentionOptions& options);

}  // namespace halcyon
