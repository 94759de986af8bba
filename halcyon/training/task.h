// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "halcyon/training/random.h"

namespace halcyon::training {

// Which micro-batch of the run is asked for. All that is random in it must be drawn from random(),
// or from LibTorch's default generator (drop path), which the trainer seeds for each draw: then a
// run that was killed and resumed repeats it to the bit.
struct Draw {
  uint64_t seed = 0;
  int64_t step = 0;   // 0-based
  int64_t micro = 0;  // of the step's micro-batches
  int64_t micros = 1;
  // stream: different ones for purposes that must not share numbers.
  Random random(uint64_t stream = 0) const {
    return Random(seed, {static_cast<uint64_t>(step), static_cast<uint64_t>(micro), stream});
  }
  // The index of the sample'th sample of this micro-batch of `batch` in the run: for EpochOrder.
  int64_t sample(int64_t batch, int64_t sample) const {
    return (step * micros + micro) * batch + sample;
  }
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
using Scores = std::map<std::string, double>;

struct Loss {
  at::Tensor value;    // scalar, with its graph
  int64_t samples;     // in the micro-batch
  NamedTensors parts;  // inputs, prediction: searched in this order when the loss is not finite
};

// What is trained on what.
class Task {
 public:
  virtual ~Task() = default;
  virtual torch::nn::Module& module() = 0;
  // One micro-batch, in training mode, under the run's precision.
  virtual Loss loss(const Draw& draw) = 0;
  // Scores on data held out; called without gradients, in evaluation mode, with the averaged
  // weights in the module. Names must not change during a run.
  virtual Scores validate() { return {}; }
};

}  // namespace halcyon::training
