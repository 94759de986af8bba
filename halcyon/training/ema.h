// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "halcyon/training/task.h"

namespace halcyon::training {

// The exponential moving average of parameters (Polyak averaging), which forecasts better than the
// last step's. The decay warms up, so that the start is forgotten: min(decay, (1 + n) / (10 + n))
// after n steps. Decay 0 keeps the parameters themselves.
class MovingAverage {
 public:
  MovingAverage(const NamedTensors& parameters, double decay);

  void update(int64_t step);  // after the 0-based step
  std::map<std::string, at::Tensor> state() const;

  // While it lives, the parameters hold the average.
  class Scope {
   public:
    explicit Scope(MovingAverage& average);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    MovingAverage& average_;
    std::vector<at::Tensor> live_;
  };

 private:
  NamedTensors parameters_;
  std::vector<at::Tensor> average_;
  double decay_;
};

}  // namespace halcyon::training
