// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/loss.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/base/error.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"

namespace halcyon::training {
namespace {

TEST(Loss, WithoutWeightsItIsTorchs) {
  at::manual_seed(0);
  const auto p = at::randn({2, 3, 4, 5}) * 2, t = at::randn({2, 3, 4, 5});
  EXPECT_TRUE(test::near(weighted_loss(p, t, {.kind = LossKind::mse}), at::mse_loss(p, t), 1e-6));
  EXPECT_TRUE(test::near(weighted_loss(p, t, {.delta = 0.7}),
                         at::huber_loss(p, t, at::Reduction::Mean, 0.7), 1e-6));
}

TEST(Loss, IsTheWeightedMeanOverWhatTheMaskKeeps) {
  const auto p = at::tensor({1.0, 2.0, 3.0, 4.0}, at::kDouble).view({1, 2, 2});
  const auto t = at::tensor({0.0, 0.0, std::nan(""), 1.0}, at::kDouble).view({1, 2, 2});
  const auto mask = at::tensor({1, 1, 0, 1}).to(at::kBool).view({1, 2, 2});
  const auto area = at::tensor({1.0, 3.0});
  const LossOptions options{.kind = LossKind::mse, .channel_weights = {1, 10}};
  // (1*1*1 + 3*1*4 + 3*10*9) / (1 + 3 + 30)
  EXPECT_DOUBLE_EQ(weighted_loss(p, t, options, mask, area).item<double>(), 283.0 / 34);
  // Huber: 1 (2 - 0.5), ...
  EXPECT_DOUBLE_EQ(weighted_loss(p, t, {.delta = 1}, mask, area).item<double>(),
                   (0.5 + 3 * 1.5 + 3 * 2.5) / 7);
}

TEST(Loss, AFullyMaskedBatchCostsNothingAndNaNTargetsLeaveNoTrace) {
  auto p = at::ones({1, 1, 3}).requires_grad_();
  const auto t = at::full({1, 1, 3}, std::nan(""));
  auto loss = weighted_loss(p, t, {}, at::zeros({1, 1, 3}, at::kBool));
  loss.backward();
  EXPECT_EQ(loss.item<float>(), 0);
  EXPECT_EQ(p.grad().abs().sum().item<float>(), 0);
}

TEST(Loss, GradientsAgreeWithDifferences) {
  at::manual_seed(1);
  auto p = at::randn({2, 3, 5}, at::kDouble).requires_grad_();
  const auto t = at::randn({2, 3, 5}, at::kDouble);
  const auto mask = at::rand({2, 1, 5}) > 0.3;
  const auto area = at::rand({5}, at::kDouble);
  for (const LossKind kind : {LossKind::huber, LossKind::mse}) {
    const LossOptions options{.kind = kind, .delta = 0.8, .channel_weights = {1, 2, 0}};
    EXPECT_TRUE(test::gradcheck(
        [&] { return std::vector<at::Tensor>{weighted_loss(p, t, options, mask, area)}; }, {p}));
  }
}

TEST(Loss, Bf16PredictionsAreScoredInFloat) {
  const auto p = at::full({1, 1, 1000}, 0.1, at::kBFloat16), t = at::zeros({1, 1, 1000});
  const auto loss = weighted_loss(p, t, {.kind = LossKind::mse});
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  EXPECT_NEAR(loss.item<float>(), 0.10009765625 * 0.10009765625, 1e-8);
}

TEST(Loss, RefusesWhatDoesNotFit) {
  const auto x = at::zeros({2, 3, 4});
  EXPECT_THROW(weighted_loss(x, at::zeros({2, 3, 5}), {}), Error);
  EXPECT_THROW(weighted_loss(x, x, {.delta = 0}), Error);
  EXPECT_THROW(weighted_loss(x, x, {.channel_weights = {1, 2}}), Error);
  EXPECT_THROW(weighted_loss(x, x, {}, at::zeros({2, 3, 4})), Error);
  EXPECT_THROW(weighted_loss(x, x, {}, {}, at::zeros({5})), Error);
  EXPECT_THROW(weighted_loss(x, x, {}, {}, at::zeros({2, 2, 3, 4})), Error);
}

}  // namespace
}  // namespace halcyon::training
