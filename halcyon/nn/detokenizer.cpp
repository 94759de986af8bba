// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/detokenizer.h"

#include <ATen/Functions.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/nn/parameters.h"
#include "halcyon/ops/adaln/adaln.h"

namespace halcyon {
namespace {

constexpr const char* kName = "HEALPixPatchDetokenizer";
constexpr double kEps = 1e-6;

HEALPixPatchDetokenizerOptions checked(HEALPixPatchDetokenizerOptions options) {
  nn::check_positive(kName, "hidden_size", options.hidden_size);
  nn::check_positive(kName, "out_channels", options.out_channels);
  nn::check_positive(kName, "time_length", options.time_length);
  HALCYON_CHECK(options.condition_dim.value_or(0) >= 0, kName,
                "expected condition_dim >= 0, got {}", *options.condition_dim);
  return options;
}

}  // namespace

HEALPixPatchDetokenizerImpl::HEALPixPatchDetokenizerImpl(HEALPixPatchDetokenizerOptions options)
    : DetokenizerBase(kName),
      options_(checked(std::move(options))),
      grid_(options_.level_fine, options_.level_coarse, options_.region) {
  const int64_t width = options_.hidden_size, channels = options_.out_channels, p = grid_.patch();
  modulation_ = nn::Linear(options_.condition_dim.value_or(width), 2 * width);
  register_module("adaptive_modulation", torch::nn::Sequential(torch::nn::SiLU(), modulation_));
  initialize_weights();
  // fan-in as torch counts it for a transposed convolution: the second axis of the weight
  conv_t_ = register_module(
      "conv_t", nn::PatchConv(std::vector{width, channels, p, p}, channels, channels * p * p));
}

void HEALPixPatchDetokenizerImpl::initialize_weights() {
  nn::init_constant(modulation_->weight, 0);
  nn::init_constant(modulation_->bias, 0);
}

std::vector<at::Tensor> HEALPixPatchDetokenizerImpl::modulation_of(const at::Tensor& c) {
  return modulation_->forward(at::silu(c)).chunk(2, -1);
}

void HEALPixPatchDetokenizerImpl::fix_condition(const at::Tensor& c) {
  fixed_.clear();
  if (!c.defined()) return;
  const at::NoGradGuard no_grad;
  fixed_ = modulation_of(c);
}

at::Tensor HEALPixPatchDetokenizerImpl::forward(const at::Tensor& x, const at::Tensor& c) {
  const int64_t width = options_.hidden_size, pixels = grid_.coarse_size();
  HALCYON_CHECK(x.defined() && (x.dim() == 3 || x.dim() == 4), kName,
                "expected x (B, T, X, C) or (B, T * X, C), got {}", describe(x));
  nn::check_width(kName, "x", x, width);
  const int64_t frames = x.dim() == 4 ? x.size(1) : options_.time_length;
  HALCYON_CHECK(x.dim() == 4 ? x.size(2) == pixels : x.size(1) == frames * pixels, kName,
                "expected x of {} frames of {} pixels, got {}", frames, pixels, describe(x));
  nn::check_input(kName, "x", x, conv_t_->weight);
  HALCYON_CHECK(c.defined() && c.sizes() == at::IntArrayRef({x.size(0), modulation_->in_features}),
                kName, "expected c ({}, {}), got {}", x.size(0), modulation_->in_features,
                describe(c));
  nn::check_input(kName, "c", c, modulation_->weight);
  const auto parts = fixed_.empty() ? modulation_of(c) : fixed_;
  const auto each = [&](const at::Tensor& part) { return part.expand({x.size(0), -1}); };
  const auto tokens = norm_modulate(x, each(parts[0]), each(parts[1]), kEps)
                          .view({x.size(0), frames, pixels, width});
  const auto& kernel = conv_t_->weight;
  const auto bias =
      conv_t_->bias.unsqueeze(1).expand({-1, grid_.patch() * grid_.patch()}).reshape({-1});
  return grid_.scatter(linear_layer(tokens, kernel.reshape({width, -1}).t(), bias));
}

}  // namespace halcyon
