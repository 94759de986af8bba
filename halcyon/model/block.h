// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "halcyon/nn/adaln.h"
#include "halcyon/nn/cross_attention.h"
#include "halcyon/nn/spatial_attention.h"
#include "halcyon/nn/temporal_attention.h"

namespace halcyon {

namespace parallel {
struct TimeSpace;
}

// How the frames of the hidden states lie on several ranks; null: all are here.
using FramesOnRanks = std::shared_ptr<const parallel::TimeSpace>;

// How a block's temporal attention weighs the frames (temporal_kwargs).
struct TemporalKwargs {
  bool linear_attention = true;
  std::optional<int64_t> causal_window = {};
};

// How a block's spatial attention normalises queries and keys (attn_kwargs).
struct QkNormKwargs {
  std::optional<std::string> qk_norm_type = {};
  bool qk_norm_affine = true;
  std::optional<double> qk_norm_eps = {};  // the norm's own if none
};

// The rotary tables (T, d_head) of a forward (temporal_attn_kwargs).
struct RopeTables {
  std::optional<at::Tensor> rope_cos, rope_sin;
};

struct VideoDiTBlockOptions {
  int64_t hidden_size = 0, num_heads = 0, condition_embed_dim = 0;
  std::string attention_backend = "timm";   // a name of nn/spatial_attention.h
  std::string layernorm_backend = "torch";  // or "apex": the same arithmetic
  double mlp_ratio = 4.0, norm_eps = 1e-6;
  double attn_drop_rate = 0, proj_drop_rate = 0, mlp_drop_rate = 0;
  bool final_mlp_dropout = true;  // whether mlp_drop_rate acts after the last linear layer too
  double drop_path = 0;
  bool temporal_attention = false, use_rope = true;
  TemporalKwargs temporal_kwargs;
  CrossAttentionFactory cross_attention;  // empty: none
  bool is_causal = false;                 // of the temporal attention
  bool adaln_zero_init = true;
  QkNormKwargs attn_kwargs;
  // the pixels of the tokens, or at least their order, for spatial backends that need them
  std::optional<Region> grid = {};
  std::optional<healpix::Order> token_order = {};
};

// gate (B, C) with every sample's row dropped with probability `rate` and the others divided by
// 1 - rate (stochastic depth, Huang et al. 2016); the gate itself when rate is 0 or not in
// training. One draw per sample from the global generator.
at::Tensor drop_path(const at::Tensor& gate, double rate, bool training);

// One layer of VideoDiT: spatial attention within each frame, cross-attention to the observations,
// temporal attention within each pixel, MLP, in this order. Each branch reads a modulated LayerNorm
// and enters through a gate (adaLN-Zero). Keys attention.*, norm1_modulation.* (spatial attention
// and MLP), cross_attention.*, cross_attn_modulation.*, temporal_attention.*,
// temporal_attn_modulation.*, linear.layers.*.
class VideoDiTBlockImpl : public torch::nn::Module {
 public:
  explicit VideoDiTBlockImpl(VideoDiTBlockOptions options);

  // hidden_states (B, T, X, C), c (B, condition_embed_dim) -> like hidden_states. Blocks with
  // cross-attention need cross_attn_kwargs, those with rope need the tables. With ranks, T are this
  // rank's frames, also none, and the tables are of all frames.
  at::Tensor forward(const at::Tensor& hidden_states, const at::Tensor& c,
                     const SpatialAttentionKwargs& attn_kwargs = {},
                     const std::any& cross_attn_kwargs = {},
                     const RopeTables& temporal_attn_kwargs = {}, const FramesOnRanks& ranks = {});

  // The same without gradients, and in the place of hidden_states, which must be contiguous: beside
  // them there is room for pieces of some thousand tokens only (with ranks, also for what goes to
  // them and what comes). Differs by rounding, as products have other shapes.
  void forward_in_place(const at::Tensor& hidden_states, const at::Tensor& c,
                        const SpatialAttentionKwargs& attn_kwargs = {},
                        const std::any& cross_attn_kwargs = {},
                        const RopeTables& temporal_attn_kwargs = {},
                        const FramesOnRanks& ranks = {});

  // Later calls take this condition embedding (1, condition_embed_dim) for every sample, whatever c
  // says: its modulations are computed here, once. Undefined: theirs again.
  void fix_condition(const at::Tensor& c);

  // The projections that adaln_zero_init zeroes.
  const std::vector<AdaLNModulation>& modulations() const { return modulations_; }

 private:
  void check(const at::Tensor& hidden_states, const at::Tensor& c,
             const std::any& cross_attn_kwargs) const;
  // The branches, each of its normalised input; rows are tokens (..., C).
  at::Tensor spatial(const at::Tensor& x, const SpatialAttentionKwargs& kwargs);
  at::Tensor cross(const at::Tensor& x, const std::any& kwargs);
  at::Tensor temporal(const at::Tensor& x, const RopeTables& tables);
  at::Tensor mlp(const at::Tensor& x);
  at::Tensor normed(const at::Tensor& h, const Modulation& m) const;
  at::Tensor added(const at::Tensor& h, const at::Tensor& branch, const Modulation& m) const;
  void add_modulation(const std::string& key, int64_t n_blocks);
  void add_mlp();
  std::vector<Modulation> modulations_of(const at::Tensor& c);
  // The fixed ones where there are any, for this batch.
  std::vector<Modulation> modulations_for(const at::Tensor& hidden_states, const at::Tensor& c);

  VideoDiTBlockOptions options_;
  // of the spatial attention and the MLP, the cross-attention, the temporal attention
  std::vector<AdaLNModulation> modulations_;
  std::vector<Modulation> fixed_;  // of the condition that is fixed, if one is
  std::shared_ptr<SpatialAttentionBase> attention_;
  std::shared_ptr<CrossAttentionModuleBase> cross_attention_;
  TemporalAttention temporal_attention_{nullptr};
  nn::Linear mlp_in_{nullptr}, mlp_out_{nullptr};
};
TORCH_MODULE(VideoDiTBlock);

}  // namespace halcyon
