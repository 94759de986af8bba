// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/embedders.h"

#include <ATen/Functions.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>

#include <cctype>
#include <cmath>
#include <string>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/nn/drop_rows.h"
#include "halcyon/nn/parameters.h"

namespace halcyon {
namespace {

constexpr const char* kEdm = "EDMConditionEmbedder";
constexpr const char* kDit = "DiTConditionEmbedder";
constexpr const char* kZero = "ZeroConditioningEmbedder";

void check_noise(const char* name, const at::Tensor& t, const at::Tensor& freqs) {
  nn::check_rank(name, "t", t, 1, "(B,)");
  HALCYON_CHECK(!t.is_complex(), name, "expected a real t, got {}", describe(t));
  HALCYON_CHECK(t.device() == freqs.device(), name, "expected t on {}, got {}",
                freqs.device().str(), describe(t));
}

void check_condition(const char* name, const at::Tensor& condition, int64_t batch, int64_t width,
                     const at::Tensor& weight) {
  HALCYON_CHECK(condition.sizes() == at::IntArrayRef({batch, width}), name,
                "expected condition ({}, {}), got {}", batch, width, describe(condition));
  nn::check_input(name, "condition", condition, weight);
}

}  // namespace

at::Tensor frequency_ladder(int64_t half, int64_t steps, double max_positions) {
  const auto exponents = at::arange(half, at::kFloat) / static_cast<double>(steps);
  return at::pow(at::scalar_tensor(1.0 / max_positions, at::kFloat), exponents);
}

at::Tensor noise_features(const at::Tensor& t, const at::Tensor& freqs, bool cosines_first) {
  const auto type = at::promote_types(freqs.scalar_type(), at::kFloat);
  const auto x = at::outer(t.to(type), freqs.to(type));
  return cosines_first ? at::cat({x.cos(), x.sin()}, 1) : at::cat({x.sin(), x.cos()}, 1);
}

EDMConditionEmbedderImpl::EDMConditionEmbedderImpl(EDMConditionEmbedderOptions options)
    : ConditioningEmbedderBase(kEdm), options_(options) {
  nn::check_positive(kEdm, "emb_channels", options.emb_channels);
  HALCYON_CHECK(options.noise_channels >= 4 && options.noise_channels % 2 == 0, kEdm,
                "expected noise_channels even and at least 4, got {}", options.noise_channels);
  HALCYON_CHECK(options.condition_dim >= 0, kEdm, "expected condition_dim >= 0, got {}",
                options.condition_dim);
  HALCYON_CHECK(options.max_positions > 0, kEdm, "expected max_positions > 0, got {}",
                options.max_positions);
  nn::check_rate(kEdm, "condition_dropout", options.condition_dropout);
  const int64_t half = options.noise_channels / 2;
  const auto noise = register_module("map_noise", std::make_shared<torch::nn::Module>("map_noise"));
  freqs_ = noise->register_buffer("freqs", frequency_ladder(half, half - 1, options.max_positions));
  if (options.condition_dim > 0 || options.legacy_condition_bias) {
    map_condition_ =
        register_module("map_condition", nn::Linear(options.condition_dim, options.noise_channels));
  }
  map_layer0_ =
      register_module("map_layer0", nn::Linear(options.noise_channels, options.emb_channels));
  map_layer1_ =
      register_module("map_layer1", nn::Linear(options.emb_channels, options.emb_channels));
}

at::Tensor EDMConditionEmbedderImpl::noise_features(const at::Tensor& t) {
  check_noise(kEdm, t, freqs_);
  return halcyon::noise_features(t, freqs_).to(map_layer0_->weight.scalar_type());
}

at::Tensor EDMConditionEmbedderImpl::forward(const at::Tensor& t,
                                             const std::optional<at::Tensor>& condition) {
  auto e = noise_features(t);
  if (!map_condition_.is_empty() && condition && condition->defined()) {
    check_condition(kEdm, *condition, t.size(0), options_.condition_dim, map_condition_->weight);
    auto labels = *condition;
    if (is_training() && options_.condition_dropout > 0)
      labels = drop_rows(labels, options_.condition_dropout, /*rescale=*/false);
    const double scale = std::sqrt(static_cast<double>(options_.condition_dim));
    e = e + map_condition_->forward(labels * scale);
  }
  nn::check_input(kEdm, "t", e, map_layer0_->weight);
  return map_layer1_->forward(at::silu(map_layer0_->forward(e)));
}

DiTConditionEmbedderImpl::DiTConditionEmbedderImpl(DiTConditionEmbedderOptions options)
    : ConditioningEmbedderBase(kDit), options_(options) {
  const int64_t h = options.hidden_size;
  HALCYON_CHECK(h >= 2 && h % 2 == 0, kDit, "expected hidden_size even and at least 2, got {}", h);
  HALCYON_CHECK(options.condition_dim >= 0, kDit, "expected condition_dim >= 0, got {}",
                options.condition_dim);
  HALCYON_CHECK(options.max_positions > 0, kDit, "expected max_positions > 0, got {}",
                options.max_positions);
  const auto time =
      register_module("t_embedder", std::make_shared<torch::nn::Module>("t_embedder"));
  freqs_ = time->register_buffer("freqs", frequency_ladder(h / 2, h / 2, options.max_positions));
  first_ = nn::Linear(h, 2 * h);
  second_ = nn::Linear(2 * h, h);
  time->register_module("mlp", torch::nn::Sequential(first_, torch::nn::SiLU(), second_));
  if (options.condition_dim > 0) {
    cond_embedder_ = register_module("cond_embedder", nn::Linear(options.condition_dim, h, false));
    initialize_weights();
  }
}

void DiTConditionEmbedderImpl::initialize_weights() {
  if (!cond_embedder_.is_empty()) nn::init_constant(cond_embedder_->weight, 0);
}

at::Tensor DiTConditionEmbedderImpl::forward(const at::Tensor& t,
                                             const std::optional<at::Tensor>& condition) {
  check_noise(kDit, t, freqs_);
  const auto features =
      halcyon::noise_features(t, freqs_, /*cosines_first=*/true).to(first_->weight.scalar_type());
  nn::check_input(kDit, "t", features, first_->weight);
  auto c = second_->forward(at::silu(first_->forward(features)));
  if (!cond_embedder_.is_empty() && condition && condition->defined()) {
    check_condition(kDit, *condition, t.size(0), options_.condition_dim, cond_embedder_->weight);
    c = c + cond_embedder_->forward(*condition);
  }
  return c;
}

ZeroConditioningEmbedderImpl::ZeroConditioningEmbedderImpl() : ConditioningEmbedderBase(kZero) {}

at::Tensor ZeroConditioningEmbedderImpl::forward(const at::Tensor& t,
                                                 const std::optional<at::Tensor>&) {
  nn::check_rank(kZero, "t", t, 1, "(B,)");
  return at::empty({t.size(0), 0}, t.options());
}

std::shared_ptr<ConditioningEmbedderBase> make_conditioning_embedder(
    std::string_view name, int64_t hidden_size, int64_t emb_channels, int64_t noise_channels,
    int64_t condition_dim, const ConditioningEmbedderKwargs& kwargs) {
  std::string lower(name);
  for (auto& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  HALCYON_CHECK(lower == "edm" || lower == "dit" || lower == "zero", "conditioning_embedder",
                "expected \"edm\", \"dit\" or \"zero\", got \"{}\"", name);
  if (lower == "edm") {
    return std::make_shared<EDMConditionEmbedderImpl>(EDMConditionEmbedderOptions{
        emb_channels, noise_channels, condition_dim, kwargs.condition_dropout,
        kwargs.legacy_condition_bias, kwargs.max_positions});
  }
  HALCYON_CHECK(
      kwargs.condition_dropout == 0 && !kwargs.legacy_condition_bias, "conditioning_embedder",
      "expected condition_dropout and legacy_condition_bias with \"edm\" only, got \"{}\"", name);
  if (lower == "zero") return std::make_shared<ZeroConditioningEmbedderImpl>();
  return std::make_shared<DiTConditionEmbedderImpl>(
      DiTConditionEmbedderOptions{hidden_size, condition_dim, kwargs.max_positions});
}

}  // namespace halcyon
