// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/optimizer.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/training/ema.h"
#include "halcyon/training/schedule.h"
#include "tests/support/compare.h"

namespace halcyon::training {
namespace {

torch::nn::Sequential network() {
  torch::manual_seed(0);
  return torch::nn::Sequential(torch::nn::Linear(5, 7), torch::nn::Linear(7, 3));
}

void compute_gradients(torch::nn::Sequential& net, int step) {
  torch::manual_seed(100 + step);
  net->forward(torch::randn({6, 5})).square().mean().backward();
}

TEST(AdamW, AgreesWithTorchsOverManySteps) {
  auto ours = network(), theirs = network();
  AdamW adamw(*ours, {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.1});
  std::vector<torch::optim::OptimizerParamGroup> groups;
  for (const bool decay : {true, false}) {
    std::vector<at::Tensor> some;
    for (const auto& p : theirs->parameters()) {
      if ((p.dim() > 1) == decay) some.push_back(p);
    }
    groups.emplace_back(
        some, std::make_unique<torch::optim::AdamWOptions>(torch::optim::AdamWOptions(1e-2)
                                                               .betas({0.9, 0.95})
                                                               .eps(1e-6)
                                                               .weight_decay(decay ? 0.1 : 0)));
  }
  torch::optim::AdamW reference(groups);
  for (int step = 0; step < 20; ++step) {
    adamw.zero_grad();
    reference.zero_grad();
    compute_gradients(ours, step);
    compute_gradients(theirs, step);
    adamw.step(step, 1e-2);
    reference.step();
  }
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(test::near(ours->parameters()[i], theirs->parameters()[i], 1e-5));
  }
}

TEST(AdamW, DecaysOnlyMatricesThatAreNotExcepted) {
  auto net = network();
  const AdamW adamw(*net, {.no_decay = {"1.*"}});
  std::map<std::string, bool> decays;
  for (std::size_t i = 0; i < 4; ++i) decays[adamw.parameters()[i].first] = adamw.decays(i);
  EXPECT_EQ(decays,
            (std::map<std::string, bool>{
                {"0.weight", true}, {"0.bias", false}, {"1.weight", false}, {"1.bias", false}}));
}

TEST(AdamW, GradientsThatLieOtherwiseAndMissingOnesAreHandled) {
  auto ours = network(), theirs = network();
  AdamW a(*ours, {}), b(*theirs, {});
  compute_gradients(ours, 0);
  compute_gradients(theirs, 0);
  const auto untouched = ours->parameters()[3].detach().clone();
  for (auto* net : {&ours, &theirs}) (*net)->parameters()[3].mutable_grad().reset();
  auto w = ours->parameters()[0];
  w.mutable_grad() = w.grad().t().contiguous().t();
  a.step(0, 1e-2);
  b.step(0, 1e-2);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(test::identical(ours->parameters()[i], theirs->parameters()[i]));
  }
  EXPECT_TRUE(test::identical(ours->parameters()[3], untouched));
}

TEST(AdamW, ClipsByTheGlobalNorm) {
  auto net = network();
  AdamW adamw(*net, {});
  compute_gradients(net, 0);
  double squares = 0;
  for (const auto& p : net->parameters()) squares += p.grad().square().sum().item<double>();
  const double norm = std::sqrt(squares);
  EXPECT_NEAR(adamw.clip_gradients(0), norm, 1e-6 * norm);
  EXPECT_NEAR(adamw.clip_gradients(2 * norm), norm, 1e-6 * norm);
  EXPECT_NEAR(adamw.clip_gradients(norm / 2), norm, 1e-6 * norm);
  EXPECT_NEAR(adamw.clip_gradients(0), norm / 2, 1e-5 * norm);
  net->parameters()[0].mutable_grad().fill_(std::nan(""));
  EXPECT_TRUE(std::isnan(adamw.clip_gradients(1)));
}

TEST(AdamW, RefusesModulesWithoutTrainableParameters) {
  torch::nn::Sequential empty;
  EXPECT_THROW(AdamW(*empty, {}), Error);
  auto half = network();
  half->to(torch::kBFloat16);
  EXPECT_THROW(AdamW(*half, {}), Error);
}

TEST(Schedule, WarmsUpThenFallsAsACosine) {
  const Schedule s{.peak = 2, .warmup = 4, .steps = 104, .final_fraction = 0.1};
  EXPECT_DOUBLE_EQ(s.rate(0), 0.5);
  EXPECT_DOUBLE_EQ(s.rate(3), 2);
  EXPECT_DOUBLE_EQ(s.rate(4), 2);
  EXPECT_NEAR(s.rate(54), 1.1, 1e-12);
  EXPECT_NEAR(s.rate(104), 0.2, 1e-12);
  EXPECT_NEAR(s.rate(1000), 0.2, 1e-12);
  EXPECT_DOUBLE_EQ((Schedule{.peak = 3, .steps = 10}).rate(0), 3);
}

TEST(MovingAverage, FollowsWithAWarmUpAndLendsItsWeights) {
  auto net = network();
  const AdamW adamw(*net, {});
  MovingAverage average(adamw.parameters(), 0.5);
  const at::Tensor w = net->parameters()[0];
  at::Tensor expected = w.detach().clone();
  for (int step = 0; step < 12; ++step) {
    {
      const torch::NoGradGuard no_grad;
      w.add_(1);
    }
    average.update(step);
    const double decay = std::min(0.5, (1.0 + step) / (10.0 + step));
    expected = decay * expected + (1 - decay) * w.detach();
  }
  const at::Tensor live = w.detach().clone();
  {
    const MovingAverage::Scope scope(average);
    EXPECT_TRUE(test::near(w, expected, 1e-6));
  }
  EXPECT_TRUE(test::identical(w.detach(), live));

  MovingAverage none(adamw.parameters(), 0);
  {
    const torch::NoGradGuard no_grad;
    w.mul_(3);
  }
  none.update(5);
  EXPECT_TRUE(test::identical(none.state().at("0.weight"), w.detach()));
}

}  // namespace
}  // namespace halcyon::training
