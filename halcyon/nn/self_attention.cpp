// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/self_attention.h"

#include <ATen/ExpandUtils.h>
#include <ATen/Functions.h>
#include <fmt/ranges.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/ops/attention/attention.h"
#include "halcyon/ops/rms_norm.h"

namespace halcyon {
namespace {

constexpr double kRmsEps = 1e-6, kLayerNormEps = 1e-5;

}  // namespace

SelfAttentionImpl::SelfAttentionImpl(int64_t hidden_size, int64_t num_heads, double attn_drop_rate,
                                     double proj_drop_rate,
                                     const std::optional<std::string>& qk_norm_type,
                                     bool qk_norm_affine, bool is_causal)
    : SelfAttentionImpl(SpatialAttentionOptions{hidden_size, num_heads, attn_drop_rate,
                                                proj_drop_rate, qk_norm_type, qk_norm_affine,
                                                /*qk_norm_eps=*/std::nullopt, is_causal}) {}

SelfAttentionImpl::SelfAttentionImpl(const SpatialAttentionOptions& options)
    : SelfAttentionImpl("SelfAttention", options) {}

SelfAttentionImpl::SelfAttentionImpl(const std::string& name,
                                     const SpatialAttentionOptions& options)
    : SpatialAttentionBase(name),
      options_(options),
      d_head_(nn::head_width(name, options.hidden_size, options.num_heads)) {
  nn::check_rate(name, "attn_drop_rate", options.attn_drop_rate);
  nn::check_rate(name, "proj_drop_rate", options.proj_drop_rate);
  const auto& norm = options.qk_norm_type;
  HALCYON_CHECK(!norm || *norm == "RMSNorm" || *norm == "LayerNorm", name,
                "expected qk_norm_type \"RMSNorm\", \"LayerNorm\" or none, got \"{}\"", *norm);
  HALCYON_CHECK(!options.qk_norm_eps || *options.qk_norm_eps >= 0, name,
                "expected a qk_norm_eps of 0 or more, got {}", *options.qk_norm_eps);
  const auto attn_op = register_module("attn_op", std::make_shared<torch::nn::Module>("attn_op"));
  qkv_ = attn_op->register_module("qkv", nn::Linear(options.hidden_size, 3 * options.hidden_size));
  const auto add_norms = [&](auto& norms) {
    for (const auto& [key, module] : {std::pair("q_norm", &norms.q), {"k_norm", &norms.k}}) {
      *module = std::decay_t<decltype(norms.q)>(d_head_, norm_eps());
      attn_op->register_module(key, *module);
    }
  };
  if (options.qk_norm_affine && has_rms_norm()) add_norms(rms_norms_);
  if (options.qk_norm_affine && norm && !has_rms_norm()) add_norms(layer_norms_);
  proj_ = attn_op->register_module("proj", nn::Linear(options.hidden_size, options.hidden_size));
}

void SelfAttentionImpl::check_call(const at::Tensor& x, const at::Tensor& attn_mask) const {
  if (!attn_mask.defined()) return;
  HALCYON_CHECK(!options_.is_causal, name(), "expected no attn_mask with is_causal, got both");
  const int64_t n = x.size(0), length = x.size(1), heads = options_.num_heads;
  HALCYON_CHECK((attn_mask.is_floating_point() || attn_mask.scalar_type() == at::kBool) &&
                    at::is_expandable_to(attn_mask.sizes(), {n, heads, length, length}),
                name(),
                "expected attn_mask bool or floating, broadcastable to ({}, {}, {}, {}), got {}", n,
                heads, length, length, describe(attn_mask));
  HALCYON_CHECK(attn_mask.device() == x.device(), name(), "expected attn_mask on {}, got {}",
                x.device().str(), describe(attn_mask));
}

bool SelfAttentionImpl::has_rms_norm() const {
  return options_.qk_norm_type == "RMSNorm";
}

double SelfAttentionImpl::norm_eps() const {
  return options_.qk_norm_eps.value_or(has_rms_norm() ? kRmsEps : kLayerNormEps);
}

std::array<at::Tensor, 3> SelfAttentionImpl::normalised(const at::Tensor& qkv) const {
  const auto one = [&](const at::Tensor& x, const nn::RMSNorm& rms, const nn::LayerNorm& layer) {
    if (rms) return rms.ptr()->forward(x);
    if (layer) return layer.ptr()->forward(x);
    if (has_rms_norm()) return rms_norm(x, std::nullopt, norm_eps());
    return options_.qk_norm_type ? at::layer_norm(x, {d_head_}, {}, {}, norm_eps()) : x;
  };
  return {one(qkv.select(2, 0), rms_norms_.q, layer_norms_.q),
          one(qkv.select(2, 1), rms_norms_.k, layer_norms_.k), qkv.select(2, 2)};
}

at::Tensor SelfAttentionImpl::mix(const at::Tensor& qkv, const at::Tensor& attn_mask) const {
  const bool plain = !attn_mask.defined() && weight_dropout() == 0;
  if (plain && has_rms_norm()) {
    const auto weight = [](const nn::RMSNorm& norm) { return norm ? norm->weight : at::Tensor(); };
    const QkNorm norm{weight(rms_norms_.q), weight(rms_norms_.k), norm_eps()};
    return self_attention(qkv, norm, options_.is_causal);
  }
  if (plain && !options_.qk_norm_type) return self_attention(qkv, std::nullopt, options_.is_causal);
  const auto [q, k, v] = normalised(qkv);
  return attention_by_operators(q, k, v, attn_mask, weight_dropout(), options_.is_causal);
}

at::Tensor SelfAttentionImpl::forward(const at::Tensor& x,
                                      const std::optional<at::Tensor>& attn_mask) {
  nn::check_rank(name(), "x", x, 3, "(N, L, C)");
  nn::check_width(name(), "x", x, options_.hidden_size);
  nn::check_input(name(), "x", x, qkv_->weight);
  const auto mask = attn_mask.value_or(at::Tensor());
  check_call(x, mask);
  const int64_t n = x.size(0), length = x.size(1), heads = options_.num_heads;
  const auto qkv = qkv_->forward(x).view({n, length, 3, heads, d_head_});
  const auto y = proj_->forward(mix(qkv, mask).reshape({n, length, options_.hidden_size}));
  return at::dropout(y, options_.proj_drop_rate, is_training());
}

}  // namespace halcyon
