// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/parameters.h"

#include <ATen/Functions.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>

namespace halcyon::nn {
namespace {

thread_local Parameters mode = Parameters::initialised;

bool without_values(const at::Tensor& parameter) {
  return parameter.numel() == 0 || is_placeholder(parameter);
}

}  // namespace

Parameters parameters_mode() {
  return mode;
}

ParametersGuard::ParametersGuard(Parameters requested) : before_(mode) {
  mode = requested;
}
ParametersGuard::~ParametersGuard() {
  mode = before_;
}

at::Tensor empty_parameter(at::IntArrayRef sizes) {
  if (mode != Parameters::placeholders) return at::empty(sizes);
  return at::full({}, std::numeric_limits<double>::quiet_NaN()).expand(sizes);
}

bool is_placeholder(const at::Tensor& parameter) {
  if (!parameter.defined() || parameter.numel() < 2) return false;
  for (int64_t axis = 0; axis < parameter.dim(); ++axis) {
    if (parameter.size(axis) > 1 && parameter.stride(axis) != 0) return false;
  }
  return true;
}

void init_uniform_fan_in(const at::Tensor& parameter, int64_t fan_in) {
  if (without_values(parameter)) return;
  torch::NoGradGuard no_grad;
  const double bound = fan_in > 0 ? 1.0 / std::sqrt(static_cast<double>(fan_in)) : 0.0;
  parameter.uniform_(-bound, bound);
}

void init_normal(const at::Tensor& parameter, double deviation) {
  if (without_values(parameter)) return;
  torch::NoGradGuard no_grad;
  parameter.normal_(0, deviation);
}

void init_xavier_uniform(const at::Tensor& weight) {
  if (without_values(weight)) return;
  torch::NoGradGuard no_grad;
  const double bound = std::sqrt(6.0 / static_cast<double>(weight.size(0) + weight.size(1)));
  weight.uniform_(-bound, bound);
}

void init_constant(const at::Tensor& parameter, double value) {
  if (without_values(parameter)) return;
  torch::NoGradGuard no_grad;
  parameter.fill_(value);
}

}  // namespace halcyon::nn
