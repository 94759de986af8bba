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

// What the trainer asks of an optimizer; the state is kept under the names of AdamW::state().
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // step: 0-based, for the bias correction.
  virtual void step(int64_t step, double learning_rate) = 0;
  virtual void zero_grad() = 0;
  // Scales all gradients so that their global norm is at most max_norm (0: never); returns the norm
  // before it, which is not finite if a gradient is not.
  virtual double clip_gradients(double max_norm) = 0;
  virtual const NamedTensors& parameters() const = 0;
  // For a checkpoint, whole on rank 0; every rank of the run asks for it.
  virtual std::map<std::string, at::Tensor> saved_state() const = 0;
  // Where a checkpoint's is restored to, on every rank, and then taken from.
  virtual std::map<std::string, at::Tensor> restored_state() = 0;
  virtual void take_restored(const std::map<std::string, at::Tensor>& state) = 0;
};

// AdamW (Loshchilov and Hutter 2019) on the parameters of a module, through ATen's fused kernel.
// Decay acts on tensors of two dimensions or more. A parameter without a gradient is left alone.
class AdamW : public Optimizer {
 public:
  AdamW(torch::nn::Module& module, AdamWOptions options);
  AdamW(NamedTensors parameters, AdamWOptions options);

  void step(int64_t step, double learning_rate) override;
  void zero_grad() override;

  double clip_gradients(double max_norm) override {
    return training::clip_gradients(parameters_, max_norm);
  }

  const NamedTensors& parameters() const override { return parameters_; }
  bool decays(std::size_t parameter) const { return decays_[parameter]; }
  // "m.<name>" and "v.<name>": the moments themselves, which a checkpoint copies from and into.
  std::map<std::string, at::Tensor> state() const;
  std::map<std::string, at::Tensor> saved_state() const override { return state(); }
  std::map<std::string, at::Tensor> restored_state() override { return state(); }
  void take_restored(const std::map<std::string, at::Tensor>&) override {}

 private:
  AdamWOptions options_;
  NamedTensors parameters_;
  std::vector<bool> decays_;
  std::vector<at::Tensor> first_, second_;
};

}  // namespace halcyon::training
