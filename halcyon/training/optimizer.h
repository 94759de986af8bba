// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>

#include <map>
#include <string>
#include <vector>

#include "halcyon/training/task.h"

namespace halcyon::training {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.99, epsilon = 1e-8;
  double weight_decay = 0.01;
  // Shell patterns (fnmatch) of parameters that never decay, besides those of one dimension or
  // none.
  std::vector<std::string> no_decay = {};
};

// The parameters of a module that need a gradient.
NamedTensors trainable(const torch::nn::Module& module);

// Scales the gradients of these parameters so that their global norm is at most max_norm (0:
// never); returns the norm before it, which is not finite if a gradient is not.
double clip_gradients(const NamedTensors& parameters, double max_norm);

// AdamW (Loshchilov and Hutter 2019) on the parameters of a module, through ATen's fused kernel.
// Decay acts on tensors of two dimensions or more. A parameter without a gradient is left alone.
class AdamW {
 public:
  AdamW(torch::nn::Module& module, AdamWOptions options);
  AdamW(NamedTensors parameters, AdamWOptions options);

  // step: 0-based, for the bias correction.
  void step(int64_t step, double learning_rate);
  void zero_grad();

  double clip_gradients(double max_norm) { return training::clip_gradients(parameters_, max_norm); }

  const NamedTensors& parameters() const { return parameters_; }
  bool decays(std::size_t parameter) const { return decays_[parameter]; }
  // "m.<name>" and "v.<name>": the moments themselves, which a checkpoint copies from and into.
  std::map<std::string, at::Tensor> state() const;

 private:
  AdamWOptions options_;
  NamedTensors parameters_;
  std::vector<bool> decays_;
  std::vector<at::Tensor> first_, second_;
};

}  // namespace halcyon::training
