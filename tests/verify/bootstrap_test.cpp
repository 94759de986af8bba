// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/bootstrap.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "halcyon/base/error.h"

namespace halcyon::verify {
namespace {

constexpr int64_t kDay = 86400;

std::vector<int64_t> daily(int64_t count, int64_t step = kDay) {
  std::vector<int64_t> times;
  for (int64_t t = 0; t < count; ++t) times.push_back(t * step);
  return times;
}

TEST(Bootstrap, ValueIsTheMeanOfTheSeriesRmse) {
  const at::Tensor squared =
      at::tensor({1.0, 4.0, 1.0, std::nan(""), 7.0, 16.0}, at::kDouble).view({3, 2});
  const Estimate estimate = mean_rmse(squared, daily(3));
  EXPECT_NEAR(estimate.value, (std::sqrt(3.0) + std::sqrt(10.0)) / 2, 1e-15);
}

TEST(Bootstrap, ConstantErrorsHaveNoSpread) {
  const Estimate estimate = mean_rmse(at::full({100}, 4.0, at::kDouble), daily(100));
  EXPECT_EQ(estimate.value, 2);
  EXPECT_EQ(estimate.low, 2);
  EXPECT_EQ(estimate.high, 2);
}

// Independent daily squared errors of unit variance: sd of the RMSE of n values is about
// 1/sqrt(2n).
TEST(Bootstrap, IntervalHasTheWidthOfTheory) {
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  std::vector<double> values(2000);
  for (auto& value : values) value = std::pow(normal(random), 2);
  const at::Tensor squared = at::tensor(values, at::kDouble);
  const Estimate estimate = mean_rmse(squared, daily(2000), {.resamples = 2000, .block_days = 1});
  EXPECT_NEAR(estimate.high - estimate.low, 2 * 1.96 / std::sqrt(4000.0), 0.006);
  EXPECT_LT(estimate.low, estimate.value);
  EXPECT_GT(estimate.high, estimate.value);
  // values that repeat four times a day tell no more than one
  const at::Tensor repeated = squared.narrow(0, 0, 500).repeat_interleave(4);
  const Estimate whole_days =
      mean_rmse(repeated, daily(2000, kDay / 4), {.resamples = 2000, .block_days = 1});
  EXPECT_NEAR(whole_days.high - whole_days.low, 2 * 1.96 / std::sqrt(1000.0), 0.015);
}

TEST(Bootstrap, SeededAndPaired) {
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> uniform(0, 10);
  std::vector<double> values(300);
  for (auto& value : values) value = uniform(random);
  const at::Tensor a = at::tensor(values, at::kDouble), b = a * 1.21;
  const auto times = daily(300);
  const Estimate one = mean_rmse(a, times, {.seed = 7}), again = mean_rmse(a, times, {.seed = 7}),
                 other = mean_rmse(a, times, {.seed = 8});
  EXPECT_EQ(one.low, again.low);
  EXPECT_EQ(one.high, again.high);
  EXPECT_NE(one.low, other.low);
  // b is 1.1 times as bad on every day: the pairing leaves far less spread than either has
  const Estimate difference = mean_rmse_difference(a, b, times);
  EXPECT_NEAR(difference.value, -0.1 * one.value, 1e-12);
  EXPECT_LT(difference.high, 0);
  EXPECT_NEAR(difference.high - difference.low, 0.1 * (one.high - one.low),
              0.03 * (one.high - one.low));
}

TEST(Bootstrap, RefusesWhatItCannotEstimate) {
  const auto times = daily(3);
  EXPECT_THROW(mean_rmse(at::zeros({4}), times), Error);
  EXPECT_THROW(mean_rmse(at::full({3}, std::nan("")), times), Error);
  EXPECT_THROW(mean_rmse(at::zeros({3}), times, {.resamples = 0}), Error);
  EXPECT_THROW(mean_rmse(at::zeros({3}), times, {.confidence = 1}), Error);
  EXPECT_THROW(mean_rmse_difference(at::zeros({3}), at::zeros({3, 2}), times), Error);
}

}  // namespace
}  // namespace halcyon::verify
