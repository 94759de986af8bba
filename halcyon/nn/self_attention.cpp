// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/self_attention.h"

#include <ATen/ExpandUtils.h>
#include <ATen/Functions.h>
#include <fmt/ranges.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/ops/rms_norm.h"

namespace halcyon {
namespace {

constexpr const char* kName = "SelfAttention";
constexpr double kRmsEps = 1e-6, kLayerNormEps = 1e-5;

using Norm = std::function<at::Tensor(const at::Tensor&)>;

// Registers the norm with its parameters, if it has any, as `key` of parent.
Norm make_norm(torch::nn::Module& parent, const std::string& key,
               const SpatialAttentionOptions& options, int64_t width) {
  const bool rms = *options.qk_norm_type == "RMSNorm";
  if (!options.qk_norm_affine) {
    return [rms, width](const at::Tensor& x) {
      return rms ? rms_norm(x, std::nullopt, kRmsEps)
                 : at::layer_norm(x, {width}, {}, {}, kLayerNormEps);
    };
  }
  if (rms) {
    const auto norm = parent.register_module(key, nn::RMSNorm(width, kRmsEps));
    return [impl = norm.get()](const at::Tensor& x) { return impl->forward(x); };
  }
  const auto norm = parent.register_module(key, nn::LayerNorm(width, kLayerNormEps));
  return [impl = norm.get()](const at::Tensor& x) { return impl->forward(x); };
}

}  // namespace

SelfAttentionImpl::SelfAttentionImpl(int64_t hidden_size, int64_t num_heads, double attn_drop_rate,
                                     double proj_drop_rate,
                                     const std::optional<std::string>& qk_norm_type,
                                     bool qk_norm_affine, bool is_causal)
    : SelfAttentionImpl(SpatialAttentionOptions{hidden_size, num_heads, attn_drop_rate,
                                                proj_drop_rate, qk_norm_type, qk_norm_affine,
                                                is_causal, std::nullopt}) {}

SelfAttentionImpl::SelfAttentionImpl(const SpatialAttentionOptions& options)
    : SpatialAttentionBase(kName),
      options_(options),
      d_head_(nn::head_width(kName, options.hidden_size, options.num_heads)) {
  nn::check_rate(kName, "attn_drop_rate", options.attn_drop_rate);
  nn::check_rate(kName, "proj_drop_rate", options.proj_drop_rate);
  const auto& norm = options.qk_norm_type;
  HALCYON_CHECK(!norm || *norm == "RMSNorm" || *norm == "LayerNorm", kName,
                "expected qk_norm_type \"RMSNorm\", \"LayerNorm\" or none, got \"{}\"", *norm);
  const auto attn_op = register_module("attn_op", std::make_shared<torch::nn::Module>("attn_op"));
  qkv_ = attn_op->register_module("qkv", nn::Linear(options.hidden_size, 3 * options.hidden_size));
  if (norm) {
    q_norm_ = make_norm(*attn_op, "q_norm", options, d_head_);
    k_norm_ = make_norm(*attn_op, "k_norm", options, d_head_);
  }
  proj_ = attn_op->register_module("proj", nn::Linear(options.hidden_size, options.hidden_size));
}

at::Tensor SelfAttentionImpl::forward(const at::Tensor& x,
                                      const std::optional<at::Tensor>& attn_mask) {
  nn::check_rank(kName, "x", x, 3, "(N, L, C)");
  nn::check_width(kName, "x", x, options_.hidden_size);
  nn::check_input(kName, "x", x, qkv_->weight);
  const int64_t n = x.size(0), length = x.size(1), heads = options_.num_heads;
  std::optional<at::Tensor> mask;
  if (attn_mask && attn_mask->defined()) {
    HALCYON_CHECK(!options_.is_causal, kName, "expected no attn_mask with is_causal, got both");
    HALCYON_CHECK((attn_mask->is_floating_point() || attn_mask->scalar_type() == at::kBool) &&
                      at::is_expandable_to(attn_mask->sizes(), {n, heads, length, length}),
                  kName,
                  "expected attn_mask bool or floating, broadcastable to ({}, {}, {}, {}), got {}",
                  n, heads, length, length, describe(*attn_mask));
    HALCYON_CHECK(attn_mask->device() == x.device(), kName, "expected attn_mask on {}, got {}",
                  x.device().str(), describe(*attn_mask));
    mask = attn_mask;
  }
  const auto qkv = qkv_->forward(x).view({n, length, 3, heads, d_head_}).unbind(2);
  auto q = qkv[0], k = qkv[1];
  if (q_norm_) {
    q = q_norm_(q);
    k = k_norm_(k);
  }
  if (mask && mask->is_floating_point()) mask = mask->to(q.scalar_type());
  const double dropout = is_training() ? options_.attn_drop_rate : 0.0;
  auto y =
      at::scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), qkv[2].transpose(1, 2),
                                       mask, dropout, options_.is_causal);
  y = proj_->forward(y.transpose(1, 2).reshape({n, length, options_.hidden_size}));
  return at::dropout(y, options_.proj_drop_rate, is_training());
}

}  // namespace halcyon
