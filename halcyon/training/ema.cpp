// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/ema.h"

#include <ATen/ops/_foreach_lerp.h>
#include <c10/core/GradMode.h>

#include <algorithm>

namespace halcyon::training {

MovingAverage::MovingAverage(const NamedTensors& parameters, double decay)
    : parameters_(parameters), decay_(decay) {
  for (const auto& [name, p] : parameters_) average_.push_back(p.detach().clone());
}

void MovingAverage::update(int64_t step) {
  const c10::NoGradGuard no_grad;
  const auto n = static_cast<double>(step);
  const double decay = std::min(decay_, (1 + n) / (10 + n));
  std::vector<at::Tensor> live;
  for (const auto& [name, p] : parameters_) live.push_back(p.detach());
  at::_foreach_lerp_(average_, live, 1 - decay);
}

std::map<std::string, at::Tensor> MovingAverage::state() const {
  std::map<std::string, at::Tensor> out;
  for (std::size_t i = 0; i < average_.size(); ++i) out[parameters_[i].first] = average_[i];
  return out;
}

MovingAverage::Scope::Scope(MovingAverage& average) : average_(average) {
  const c10::NoGradGuard no_grad;
  for (std::size_t i = 0; i < average_.average_.size(); ++i) {
    at::Tensor p = average_.parameters_[i].second;
    live_.push_back(p.detach().clone());
    p.copy_(average_.average_[i]);
  }
}

MovingAverage::Scope::~Scope() {
  const c10::NoGradGuard no_grad;
  for (std::size_t i = 0; i < live_.size(); ++i) {
    at::Tensor p = average_.parameters_[i].second;
    p.copy_(live_[i]);
  }
}

}  // namespace halcyon::training
