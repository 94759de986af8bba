// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/optimizer.h"

#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fnmatch.h>

#include <algorithm>

#include "halcyon/base/error.h"

namespace halcyon::training {
namespace {

// The fused kernel walks through memory: all that belongs to a parameter must lie as it does.
void lay_out_gradient(const at::Tensor& parameter) {
  at::Tensor& gradient = parameter.mutable_grad();
  if (gradient.strides() == parameter.strides()) return;
  gradient = at::empty_like(parameter.detach()).copy_(gradient);
}

}  // namespace

NamedTensors trainable(const torch::nn::Module& module) {
  NamedTensors out;
  for (const auto& item : module.named_parameters()) {
    if (item.value().requires_grad()) out.emplace_back(item.key(), item.value());
  }
  return out;
}

double clip_gradients(const NamedTensors& parameters, double max_norm) {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const auto& [name, p] : parameters) {
    if (p.grad().defined()) gradients.push_back(p.grad());
  }
  if (gradients.empty()) return 0;
  std::vector<at::Tensor> norms = at::_foreach_norm(gradients, 2);
  for (auto& n : norms) n = n.to(at::kDouble);
  const double norm = at::stack(norms).norm().item<double>();
  if (max_norm > 0 && norm > max_norm) at::_foreach_mul_(gradients, max_norm / norm);
  return norm;
}

AdamW::AdamW(torch::nn::Module& module, AdamWOptions options)
    : AdamW(trainable(module), std::move(options)) {}

AdamW::AdamW(NamedTensors parameters, AdamWOptions options)
    : options_(std::move(options)), parameters_(std::move(parameters)) {
  for (const auto& [name, p] : parameters_) {
    HALCYON_CHECK(p.scalar_type() == at::kFloat || p.scalar_type() == at::kDouble, "AdamW",
                  "expected parameters of float32 or float64, got {} for {}",
                  c10::toString(p.scalar_type()), name);
    HALCYON_CHECK(p.is_non_overlapping_and_dense(), "AdamW", "expected dense parameters, got {}",
                  name);
    const bool excepted = std::any_of(options_.no_decay.begin(), options_.no_decay.end(),
                                      [&, &key = name](const auto& pattern) {
                                        return ::fnmatch(pattern.c_str(), key.c_str(), 0) == 0;
                                      });
    decays_.push_back(p.dim() > 1 && !excepted);
    first_.push_back(at::zeros_like(p.detach()));
    second_.push_back(at::zeros_like(p.detach()));
  }
  HALCYON_CHECK(!parameters_.empty(), "AdamW", "expected a module with parameters to train");
}

void AdamW::step(int64_t step, double learning_rate) {
  const c10::NoGradGuard no_grad;
  for (const bool decay : {true, false}) {
    std::vector<at::Tensor> parameters, gradients, first, second, steps;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const at::Tensor& p = parameters_[i].second;
      if (decays_[i] != decay || !p.grad().defined()) continue;
      lay_out_gradient(p);
      parameters.push_back(p);
      gradients.push_back(p.grad());
      first.push_back(first_[i]);
      second.push_back(second_[i]);
      steps.push_back(at::full({}, static_cast<double>(step + 1), p.options().dtype(at::kFloat)));
    }
    if (parameters.empty()) continue;
    at::_fused_adamw_(parameters, gradients, first, second, {}, steps, learning_rate,
                      options_.beta1, options_.beta2, decay ? options_.weight_decay : 0,
                      options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

void AdamW::zero_grad() {
  for (auto& [name, p] : parameters_) p.mutable_grad().reset();
}

std::map<std::string, at::Tensor> AdamW::state() const {
  std::map<std::string, at::Tensor> out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    out["m." + parameters_[i].first] = first_[i];
    out["v." + parameters_[i].first] = second_[i];
  }
  return out;
}

}  // namespace halcyon::training
