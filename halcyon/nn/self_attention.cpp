// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/self_attention.h"

#include <ATen/ExpandUtils.h>
#include <ATen/Functions.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <fmt/ranges.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/ops/attention/attention.h"
#include "halcyon/ops/cpu_bf16.h"
#include "halcyon/ops/rms_norm.h"

namespace halcyon {
namespace {

constexpr double kRmsEps = 1e-6, kLayerNormEps = 1e-5;

// q, k, v (N, L, H, d), mask or undefined -> (N, L, H, d).
at::Tensor attend_by_operators(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& mask, double dropout, bool causal) {
  if (is_bf16_for_float({q, k, v})) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const auto wide = [](const at::Tensor& t) { return t.to(at::kFloat); };
    return attend_by_operators(wide(q), wide(k), wide(v), mask, dropout, causal).to(at::kBFloat16);
  }
  std::optional<at::Tensor> given;
  if (mask.defined()) given = mask.is_floating_point() ? mask.to(q.scalar_type()) : mask;
  const auto heads = [](const at::Tensor& t) { return t.transpose(1, 2); };
  return heads(
      at::scaled_dot_product_attention(heads(q), heads(k), heads(v), given, dropout, causal));
}

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
  auto q = qkv.select(2, 0), k = qkv.select(2, 1);
  if (rms_norms_.q) {
    q = rms_norms_.q.ptr()->forward(q);
    k = rms_norms_.k.ptr()->forward(k);
  } else if (layer_norms_.q) {
    q = layer_norms_.q.ptr()->forward(q);
    k = layer_norms_.k.ptr()->forward(k);
  } else if (has_rms_norm()) {
    q = rms_norm(q, std::nullopt, norm_eps());
    k = rms_norm(k, std::nullopt, norm_eps());
  } else if (options_.qk_norm_type) {
    q = at::layer_norm(q, {d_head_}, {}, {}, norm_eps());
    k = at::layer_norm(k, {d_head_}, {}, {}, norm_eps());
  }
  return {q, k, qkv.select(2, 2)};
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
  return attend_by_operators(q, k, v, attn_mask, weight_dropout(), options_.is_causal);
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
