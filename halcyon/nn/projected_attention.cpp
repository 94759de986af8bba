// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/projected_attention.h"

#include <ATen/Functions.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"

namespace halcyon {

ProjectedAttentionImpl::ProjectedAttentionImpl(const std::string& name, const Options& options)
    : torch::nn::Module(name), options_(options) {
  nn::check_positive(name, "dim", options.dim);
  nn::check_positive(name, "num_heads", options.num_heads);
  HALCYON_CHECK(options.dim % options.num_heads == 0, name,
                "expected a dim that num_heads divides, got {} and {}", options.dim,
                options.num_heads);
  nn::check_rate(name, "attn_drop", options.attn_drop);
  nn::check_rate(name, "proj_drop", options.proj_drop);
  const int64_t width = options.dim / options.num_heads;
  scale_ = options.qk_scale.value_or(1 / std::sqrt(static_cast<double>(width)));
  HALCYON_CHECK(std::isfinite(scale_), name, "expected a finite qk_scale, got {}", scale_);
  qkv_ = register_module("qkv", nn::Linear(options.dim, 3 * options.dim, options.qkv_bias));
  proj_ = register_module("proj", nn::Linear(options.dim, options.dim));
}

std::array<at::Tensor, 3> ProjectedAttentionImpl::split(const at::Tensor& x, int64_t axes) {
  constexpr const char* kLayouts[] = {"(B, L, dim)", "(B, L0, L1, dim)", "(B, L0, L1, L2, dim)"};
  nn::check_rank(name(), "x", x, axes + 2, kLayouts[axes - 1]);
  nn::check_width(name(), "x", x, options_.dim);
  nn::check_input(name(), "x", x, qkv_->weight);
  const int64_t heads = options_.num_heads;
  auto parts = qkv_->forward(x).unflatten(-1, {3, heads, options_.dim / heads}).unbind(-3);
  return {std::move(parts[0]), std::move(parts[1]), std::move(parts[2])};
}

at::Tensor ProjectedAttentionImpl::joined(const at::Tensor& y) {
  return at::dropout(proj_->forward(y.flatten(-2)), options_.proj_drop, is_training());
}

}  // namespace halcyon
