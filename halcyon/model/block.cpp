// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/block.h"

#include <ATen/Functions.h>
#include <ATen/record_function.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/dropout.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/nn/drop_rows.h"
#include "halcyon/ops/adaln/adaln.h"
#include "halcyon/parallel/time_space.h"
#include "halcyon/parallel/window.h"

namespace halcyon {
namespace {

constexpr const char* kName = "VideoDiTBlock";

SpatialAttentionOptions spatial_options(const VideoDiTBlockOptions& options) {
  SpatialAttentionOptions spatial;
  spatial.hidden_size = options.hidden_size;
  spatial.num_heads = options.num_heads;
  spatial.attn_drop_rate = options.attn_drop_rate;
  spatial.proj_drop_rate = options.proj_drop_rate;
  spatial.qk_norm_type = options.attn_kwargs.qk_norm_type;
  spatial.qk_norm_affine = options.attn_kwargs.qk_norm_affine;
  spatial.qk_norm_eps = options.attn_kwargs.qk_norm_eps;
  spatial.grid = options.grid;
  spatial.token_order = options.token_order;
  return spatial;
}

}  // namespace

at::Tensor drop_path(const at::Tensor& gate, double rate, bool training) {
  return training && rate > 0 ? drop_rows(gate, rate, /*rescale=*/true) : gate;
}

VideoDiTBlockImpl::VideoDiTBlockImpl(VideoDiTBlockOptions options)
    : torch::nn::Module(kName), options_(std::move(options)) {
  nn::head_width(kName, options_.hidden_size, options_.num_heads);
  HALCYON_CHECK(options_.layernorm_backend == "torch" || options_.layernorm_backend == "apex",
                kName, "expected layernorm_backend \"torch\" or \"apex\", got \"{}\"",
                options_.layernorm_backend);
  nn::check_rate(kName, "drop_path", options_.drop_path);
  nn::check_rate(kName, "mlp_drop_rate", options_.mlp_drop_rate);
  HALCYON_CHECK(options_.norm_eps >= 0, kName, "expected norm_eps >= 0, got {}", options_.norm_eps);

  attention_ = register_module(
      "attention", make_spatial_attention(options_.attention_backend, spatial_options(options_)));
  add_modulation("norm1_modulation", 2);
  if (options_.cross_attention) {
    cross_attention_ = options_.cross_attention();
    HALCYON_CHECK(cross_attention_, kName,
                  "expected a module from the cross_attention factory, got none");
    register_module("cross_attention", cross_attention_);
    add_modulation("cross_attn_modulation", 1);
  }
  if (options_.temporal_attention) {
    temporal_attention_ = register_module(
        "temporal_attention",
        TemporalAttention(TemporalAttentionOptions{
            options_.hidden_size, options_.num_heads, options_.use_rope, options_.is_causal,
            options_.temporal_kwargs.linear_attention, options_.temporal_kwargs.causal_window}));
    add_modulation("temporal_attn_modulation", 1);
  }
  add_mlp();
}

void VideoDiTBlockImpl::add_modulation(const std::string& key, int64_t n_blocks) {
  modulations_.push_back(
      register_module(key, AdaLNModulation(options_.hidden_size, options_.condition_embed_dim,
                                           n_blocks, options_.adaln_zero_init)));
}

void VideoDiTBlockImpl::add_mlp() {
  const double hidden = static_cast<double>(options_.hidden_size) * options_.mlp_ratio;
  HALCYON_CHECK(hidden >= 1 && hidden < 1e9, kName,
                "expected hidden_size * mlp_ratio of at least 1, got {} * {}", options_.hidden_size,
                options_.mlp_ratio);
  const auto width = static_cast<int64_t>(hidden);
  const double rate = options_.mlp_drop_rate;
  mlp_in_ = nn::Linear(options_.hidden_size, width);
  mlp_out_ = nn::Linear(width, options_.hidden_size);
  // the list gives the layers their keys; mlp() calls them
  auto layers =
      torch::nn::Sequential(mlp_in_, torch::nn::GELU(torch::nn::GELUOptions().approximate("tanh")));
  if (rate > 0) layers->push_back(torch::nn::Dropout(rate));
  layers->push_back(mlp_out_);
  if (rate > 0 && options_.final_mlp_dropout) layers->push_back(torch::nn::Dropout(rate));
  register_module("linear", std::make_shared<torch::nn::Module>("linear"))
      ->register_module("layers", layers);
}

// Profilers see the branches by these names.
at::Tensor VideoDiTBlockImpl::spatial(const at::Tensor& x, const SpatialAttentionKwargs& kwargs) {
  RECORD_USER_SCOPE("halcyon::spatial_attention");
  return attention_->attend(x.flatten(0, 1), kwargs).view(x.sizes());
}

at::Tensor VideoDiTBlockImpl::cross(const at::Tensor& x, const std::any& kwargs) {
  RECORD_USER_SCOPE("halcyon::cross_attention");
  return cross_attention_->attend(x, kwargs);
}

at::Tensor VideoDiTBlockImpl::temporal(const at::Tensor& x, const RopeTables& tables) {
  RECORD_USER_SCOPE("halcyon::temporal_attention");
  return temporal_attention_->forward(x, tables.rope_cos, tables.rope_sin);
}

at::Tensor VideoDiTBlockImpl::mlp(const at::Tensor& x) {
  RECORD_USER_SCOPE("halcyon::mlp");
  const double rate = options_.mlp_drop_rate;
  const auto hidden = mlp_in_->activated(x, Activation::gelu_tanh);
  const auto y = mlp_out_->forward(at::dropout(hidden, rate, is_training()));
  return options_.final_mlp_dropout ? at::dropout(y, rate, is_training()) : y;
}

at::Tensor VideoDiTBlockImpl::normed(const at::Tensor& h, const Modulation& m) const {
  RECORD_USER_SCOPE("halcyon::norm_modulate");
  return norm_modulate(h, m.shift, m.scale, options_.norm_eps);
}

at::Tensor VideoDiTBlockImpl::added(const at::Tensor& h, const at::Tensor& branch,
                                    const Modulation& m) const {
  RECORD_USER_SCOPE("halcyon::gated_residual");
  return gated_residual(h, branch, drop_path(m.gate, options_.drop_path, is_training()));
}

// Of the spatial attention, the MLP, the cross-attention and the temporal attention, where there
// are any.
std::vector<Modulation> VideoDiTBlockImpl::modulations_of(const at::Tensor& c) {
  std::vector<Modulation> all;
  for (auto& projection : modulations_) {
    const auto some = projection->modulations(c);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

void VideoDiTBlockImpl::fix_condition(const at::Tensor& c) {
  fixed_.clear();
  if (!c.defined()) return;
  const at::NoGradGuard no_grad;
  fixed_ = modulations_of(c);
}

std::vector<Modulation> VideoDiTBlockImpl::modulations_for(const at::Tensor& hidden_states,
                                                           const at::Tensor& c) {
  if (fixed_.empty()) return modulations_of(c);
  auto all = fixed_;
  for (auto& m : all) {
    for (auto* t : {&m.shift, &m.scale, &m.gate}) *t = t->expand({hidden_states.size(0), -1});
  }
  return all;
}

void VideoDiTBlockImpl::check(const at::Tensor& hidden_states, const at::Tensor& c,
                              const std::any& cross_attn_kwargs) const {
  nn::check_rank(kName, "hidden_states", hidden_states, 4, "(B, T, X, C)");
  nn::check_width(kName, "hidden_states", hidden_states, options_.hidden_size);
  HALCYON_CHECK(c.defined() && c.sizes() == at::IntArrayRef({hidden_states.size(0),
                                                             options_.condition_embed_dim}),
                kName, "expected c ({}, {}), got {}", hidden_states.size(0),
                options_.condition_embed_dim, describe(c));
  HALCYON_CHECK(!cross_attention_ || cross_attn_kwargs.has_value(), kName,
                "expected cross_attn_kwargs for the cross_attention, got none");
  nn::check_input(kName, "hidden_states", hidden_states, modulations_[0]->projection()->weight);
}

at::Tensor VideoDiTBlockImpl::forward(const at::Tensor& hidden_states, const at::Tensor& c,
                                      const SpatialAttentionKwargs& attn_kwargs,
                                      const std::any& cross_attn_kwargs,
                                      const RopeTables& temporal_attn_kwargs,
                                      const FramesOnRanks& ranks) {
  check(hidden_states, c, cross_attn_kwargs);
  const auto modulations = modulations_for(hidden_states, c);
  auto next = modulations.begin() + 2;
  auto h = hidden_states;
  h = added(h, spatial(normed(h, modulations[0]), attn_kwargs), modulations[0]);
  if (cross_attention_) {
    const auto& m = *next++;
    h = added(h, cross(normed(h, m), cross_attn_kwargs), m);
  }
  if (!temporal_attention_.is_empty()) {
    // c is of samples: the modulation is the same for the pixels of all frames
    const auto& m = *next++;
    auto branch = normed(h, m);
    // what the attention's projection would round anyway is rounded before it is sent
    if (ranks)
      branch = parallel::move(parallel::as_autocast(branch), parallel::Way::to_space, ranks);
    branch = temporal(branch, temporal_attn_kwargs);
    if (ranks) branch = parallel::move(branch, parallel::Way::to_time, ranks);
    h = added(h, branch, m);
  }
  return added(h, mlp(normed(h, modulations[1])), modulations[1]);
}

}  // namespace halcyon
