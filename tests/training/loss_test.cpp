// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/loss.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "halcyon/base/error.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"

namespace halcyon::training {
namespace {

TEST(Loss, WithoutWeightsItIsTorchs) {
  torch::manual_seed(0);
  const auto p = torch::randn({2, 3, 4, 5}) * 2, t = torch::randn({2, 3, 4, 5});
  EXPECT_TRUE(
      test::near(weighted_loss(p, t, {.kind = LossKind::mse}), torch::mse_loss(p, t), 1e-6));
  EXPECT_TRUE(test::near(weighted_loss(p, t, {.delta = 0.7}),
                         at::huber_loss(p, t, at::Reduction::Mean, 0.7), 1e-6));
}

TEST(Loss, IsTheWeightedMeanOverWhatTheMaskKeeps) {
  const auto p = torch::tensor({1.0, 2.0, 3.0, 4.0}, torch::kDouble).view({1, 2, 2});
  const auto t = torch::tensor({0.0, 0.0, std::nan(""), 1.0}, torch::kDouble).view({1, 2, 2});
  const auto mask = torch::tensor({true, true, false, true}).view({1, 2, 2});
  const auto area = torch::tensor({1.0, 3.0});
  const LossOptions options{.kind = LossKind::mse, .channel_weights = {1, 10}};
  // (1*1*1 + 3*1*4 + 3*10*9) / (1 + 3 + 30)
  EXPECT_DOUBLE_EQ(weighted_loss(p, t, options, mask, area).item<double>(), 283.0 / 34);
  // Huber: 1 (2 - 0.5), ...
  EXPECT_DOUBLE_EQ(weighted_loss(p, t, {.delta = 1}, mask, area).item<double>(),
                   (0.5 + 3 * 1.5 + 3 * 2.5) / 7);
}

TEST(Loss, AFullyMaskedBatchCostsNothingAndNaNTargetsLeaveNoTrace) {
  auto p = torch::ones({1, 1, 3}, torch::requires_grad());
  const auto t = torch::full({1, 1, 3}, std::nan(""));
  auto loss = weighted_loss(p, t, {}, torch::zeros({1, 1, 3}, torch::kBool));
  loss.backward();
  EXPECT_EQ(loss.item<float>(), 0);
  EXPECT_EQ(p.grad().abs().sum().item<float>(), 0);
}

TEST(Loss, GradientsAgreeWithDifferences) {
  torch::manual_seed(1);
  auto p = torch::randn({2, 3, 5}, torch::kDouble).requires_grad_();
  const auto t = torch::randn({2, 3, 5}, torch::kDouble);
  const auto mask = torch::rand({2, 1, 5}) > 0.3;
  const auto area = torch::rand({5}, torch::kDouble);
  for (const LossKind kind : {LossKind::huber, LossKind::mse}) {
    const LossOptions options{.kind = kind, .delta = 0.8, .channel_weights = {1, 2, 0}};
    EXPECT_TRUE(test::gradcheck(
        [&] { return std::vector<at::Tensor>{weighted_loss(p, t, options, mask, area)}; }, {p}));
  }
}

TEST(Loss, Bf16PredictionsAreScoredInFloat) {
  const auto p = torch::full({1, 1, 1000}, 0.1, torch::kBFloat16), t = torch::zeros({1, 1, 1000});
  const auto loss = weighted_loss(p, t, {.kind = LossKind::mse});
  EXPECT_EQ(loss.scalar_type(), torch::kFloat);
  EXPECT_NEAR(loss.item<float>(), 0.10009765625 * 0.10009765625, 1e-8);
}

TEST(Loss, RefusesWhatDoesNotFit) {
  const auto x = torch::zeros({2, 3, 4});
  EXPECT_THROW(weighted_loss(x, torch::zeros({2, 3, 5}), {}), Error);
  EXPECT_THROW(weighted_loss(x, x, {.delta = 0}), Error);
  EXPECT_THROW(weighted_loss(x, x, {.channel_weights = {1, 2}}), Error);
  EXPECT_THROW(weighted_loss(x, x, {}, torch::zeros({2, 3, 4})), Error);
  EXPECT_THROW(weighted_loss(x, x, {}, {}, torch::zeros({5})), Error);
  EXPECT_THROW(weighted_loss(x, x, {}, {}, torch::zeros({2, 2, 3, 4})), Error);
}

}  // namespace
}  // namespace halcyon::training
