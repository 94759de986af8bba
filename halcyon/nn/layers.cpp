// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/layers.h"

#include <ATen/Functions.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <ostream>

#include "halcyon/nn/parameters.h"
#include "halcyon/ops/rms_norm.h"

namespace halcyon::nn {
LinearImpl::LinearImpl(int64_t in, int64_t out, bool with_bias)
    : torch::nn::Module("Linear"), in_features(in), out_features(out) {
  weight = register_parameter("weight", empty_parameter({out, in}));
  if (with_bias) {
    bias = register_parameter("bias", empty_parameter({out}));
  } else {
    register_parameter("bias", {}, /*requires_grad=*/false);
  }
  if (parameters_mode() != Parameters::initialised) return;
  init_uniform_fan_in(weight, in);
  if (with_bias) init_uniform_fan_in(bias, in);
}

at::Tensor LinearImpl::forward(const at::Tensor& x) {
  return linear_layer(x, weight, bias);
}

at::Tensor LinearImpl::activated(const at::Tensor& x, Activation activation) {
  return linear_layer(x, weight, bias, activation);
}

void LinearImpl::pretty_print(std::ostream& stream) const {
  stream << fmt::format("Linear(in_features={}, out_features={}, bias={})", in_features,
                        out_features, bias.defined());
}

LayerNormImpl::LayerNormImpl(int64_t width, double epsilon)
    : torch::nn::Module("LayerNorm"), eps(epsilon) {
  weight = register_parameter("weight", empty_parameter({width}));
  bias = register_parameter("bias", empty_parameter({width}));
  init_constant(weight, 1);
  init_constant(bias, 0);
}

at::Tensor LayerNormImpl::forward(const at::Tensor& x) {
  return at::layer_norm(x, weight.sizes(), weight, bias, eps);
}

void LayerNormImpl::pretty_print(std::ostream& stream) const {
  stream << fmt::format("LayerNorm({}, eps={})", weight.size(0), eps);
}

RMSNormImpl::RMSNormImpl(int64_t width, double epsilon)
    : torch::nn::Module("RMSNorm"), eps(epsilon) {
  weight = register_parameter("weight", empty_parameter({width}));
  init_constant(weight, 1);
}

at::Tensor RMSNormImpl::forward(const at::Tensor& x) {
  return rms_norm(x, weight, eps);
}

void RMSNormImpl::pretty_print(std::ostream& stream) const {
  stream << fmt::format("RMSNorm({}, eps={})", weight.size(0), eps);
}

EmbeddingImpl::EmbeddingImpl(int64_t rows, int64_t width) : torch::nn::Module("Embedding") {
  weight = register_parameter("weight", empty_parameter({rows, width}));
  init_normal(weight);
}

at::Tensor EmbeddingImpl::forward(const at::Tensor& ids) {
  return at::embedding(weight, ids);
}

void EmbeddingImpl::pretty_print(std::ostream& stream) const {
  stream << fmt::format("Embedding({}, {})", weight.size(0), weight.size(1));
}

PatchConvImpl::PatchConvImpl(at::IntArrayRef weight_shape, int64_t out_channels, int64_t fan_in)
    : torch::nn::Module("PatchConv") {
  weight = register_parameter("weight", empty_parameter(weight_shape));
  bias = register_parameter("bias", empty_parameter({out_channels}));
  init_uniform_fan_in(weight, fan_in);
  init_uniform_fan_in(bias, fan_in);
}

void PatchConvImpl::pretty_print(std::ostream& stream) const {
  stream << fmt::format("PatchConv(weight=({}))", fmt::join(weight.sizes(), ", "));
}

}  // namespace halcyon::nn
