// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/self_attention.h"

#include <ATen/ExpandUtils.h>
#include <ATen/Functions.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <fmt/ranges.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/ops/cpu_bf16.h"
#include "halcyon/ops/rms_norm.h"

namespace halcyon {
namespace {

constexpr double kRmsEps = 1e-6, kLayerNormEps = 1e-5;

using Norm = std::function<at::Tensor(const at::Tensor&)>;

// Registers the norm with its parameters, if it has any, as `key` of parent.
Norm make_norm(torch::nn::Module& parent, const std::string& key,
               const SpatialAttentionOptions& options, int64_t width) {
  const bool rms = *options.qk_norm_type == "RMSNorm";
  const double eps = options.qk_norm_eps.value_or(rms ? kRmsEps : kLayerNormEps);
  if (!options.qk_norm_affine) {
    return [rms, width, eps](const at::Tensor& x) {
      return rms ? rms_norm(x, std::nullopt, eps) : at::layer_norm(x, {width}, {}, {}, eps);
    };
  }
  if (rms) {
    const auto norm = parent.register_module(key, nn::RMSNorm(width, eps));
    return [impl = norm.get()](const at::Tensor& x) { return impl->forward(x); };
  }
  const auto norm = parent.register_module(key, nn::LayerNorm(width, eps));
  return [impl = norm.get()](const at::Tensor& x) { return impl->forward(x); };
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
  if (norm) {
    q_norm_ = make_norm(*attn_op, "q_norm", options, d_head_);
    k_norm_ = make_norm(*attn_op, "k_norm", options, d_head_);
  }
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

at::Tensor SelfAttentionImpl::mix(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const at::Tensor& attn_mask) const {
  if (is_bf16_for_float({q, k, v})) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const auto wide = [](const at::Tensor& t) { return t.to(at::kFloat); };
    return mix(wide(q), wide(k), wide(v), attn_mask).to(at::kBFloat16);
  }
  std::optional<at::Tensor> mask;
  if (attn_mask.defined())
    mask = attn_mask.is_floating_point() ? attn_mask.to(q.scalar_type()) : attn_mask;
  return at::scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                          mask, weight_dropout(), options_.is_causal)
      .transpose(1, 2);
}

at::Tensor SelfAttentionImpl::forward(const at::Tensor& x,
                                      const std::optional<at::Tensor>& attn_mask) {
  nn::check_rank(name(), "x", x, 3, "(N, L, C)");
  nn::check_width(name(), "x", x, options_.hidden_size);
  nn::check_input(name(), "x", x, qkv_->weight);
  const auto mask = attn_mask.value_or(at::Tensor());
  check_call(x, mask);
  const int64_t n = x.size(0), length = x.size(1), heads = options_.num_heads;
  const auto qkv = qkv_->forward(x).view({n, length, 3, heads, d_head_}).unbind(2);
  auto q = qkv[0], k = qkv[1];
  if (q_norm_) {
    q = q_norm_(q);
    k = k_norm_(k);
  }
  const auto y = proj_->forward(mix(q, k, qkv[2], mask).reshape({n, length, options_.hidden_size}));
  return at::dropout(y, options_.proj_drop_rate, is_training());
}

}  // namespace halcyon
