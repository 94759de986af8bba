// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "halcyon/training/loss.h"
#include "halcyon/training/task.h"

namespace halcyon::training::test {

// A small regression with drop-out (LibTorch's generator) on data drawn from the draw; `ballast`
// parameters make its checkpoints large.
struct ToyNet : torch::nn::Module {
  explicit ToyNet(int64_t ballast = 0) {
    torch::manual_seed(1);
    first = register_module("first", torch::nn::Linear(8, 32));
    second = register_module("second", torch::nn::Linear(32, 2));
    norm = register_module("norm", torch::nn::BatchNorm1d(32));
    if (ballast > 0) weights = register_parameter("ballast", torch::zeros({ballast / 64, 64}));
  }
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor h = norm->forward(torch::gelu(first->forward(x)));
    h = torch::dropout(h, 0.1, is_training());
    at::Tensor out = second->forward(h);
    return weights.defined() ? out + weights.mean() : out;
  }
  torch::nn::Linear first{nullptr}, second{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  at::Tensor weights;
};

class ToyTask : public Task {
 public:
  explicit ToyTask(int64_t ballast = 0, int64_t batch = 16)
      : net(std::make_shared<ToyNet>(ballast)), batch_(batch) {}

  torch::nn::Module& module() override { return *net; }

  static std::pair<at::Tensor, at::Tensor> data(Random random, int64_t n) {
    const at::Tensor x = random.normal_tensor({n, 8}).to(torch::kFloat);
    const at::Tensor y =
        torch::stack({x.sin().sum(1), (x.slice(1, 0, 4) * x.slice(1, 4)).sum(1)}, 1);
    return {x, y};
  }

  Loss loss(const Draw& draw) override {
    const auto [x, y] = data(draw.random(), batch_);
    at::Tensor in = x;
    if (draw.step == poison_input_at) in = in / 0;
    const at::Tensor prediction = net->forward(in);
    at::Tensor value = weighted_loss(prediction, y, {});
    if (draw.step == poison_gradient_at) {
      const at::Tensor zero = net->second->weight.sum() * 0;
      value = value + zero.sqrt() - zero.sqrt().detach();  // finite, its gradient is not
    }
    return {value, batch_, {{"input", in}, {"prediction", prediction}}};
  }

  Scores validate() override {
    EXPECT_FALSE(net->is_training());
    EXPECT_FALSE(at::GradMode::is_enabled());
    const auto [x, y] = data(Random(99), 256);
    const at::Tensor prediction = net->forward(x);
    return {{"mse", torch::mse_loss(prediction, y).item<double>()},
            {"bias", (prediction - y).mean().item<double>()}};
  }

  std::shared_ptr<ToyNet> net;
  int64_t poison_input_at = -1, poison_gradient_at = -1;

 private:
  int64_t batch_;
};

}  // namespace halcyon::training::test
