// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/scores.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/base/error.h"

namespace halcyon::verify {
namespace {

const double kNan = std::nan("");

TEST(Scores, WeightedByHand) {
  const at::Tensor truth = at::tensor({1.0, 2.0, 3.0, 4.0}, at::kDouble).view({2, 2});
  const at::Tensor predicted = at::tensor({2.0, 2.0, 3.0, 1.0}, at::kDouble).view({2, 2});
  const Score s = score(predicted, truth, at::tensor({1.0, 3.0}, at::kDouble));
  EXPECT_NEAR(s.bias, (1 * 1 + 3 * -3) / 8.0, 1e-15);
  EXPECT_NEAR(s.mae, (1 * 1 + 3 * 3) / 8.0, 1e-15);
  EXPECT_NEAR(s.rmse, std::sqrt((1 + 3 * 9) / 8.0), 1e-15);
  EXPECT_EQ(s.count, 4);
  // weighted means 22/8 and 14/8
  double cov = 0, vt = 0, vp = 0;
  const double t[] = {1, 2, 3, 4}, p[] = {2, 2, 3, 1}, w[] = {1, 3, 1, 3};
  for (int i = 0; i < 4; ++i) {
    cov += w[i] * (t[i] - 22 / 8.0) * (p[i] - 14 / 8.0);
    vt += w[i] * (t[i] - 22 / 8.0) * (t[i] - 22 / 8.0);
    vp += w[i] * (p[i] - 14 / 8.0) * (p[i] - 14 / 8.0);
  }
  EXPECT_NEAR(s.correlation, cov / std::sqrt(vt * vp), 1e-14);
}

TEST(Scores, MissingPairsAndMaskedPointsDoNotCount) {
  const at::Tensor truth = at::tensor({1.0f, 2.0f, kNan, 4.0f}, at::kFloat).view({2, 2});
  const at::Tensor predicted = at::tensor({3.0f, 100.0f, 1.0f, 100.0f}, at::kFloat).view({2, 2});
  const at::Tensor weights = at::tensor({1.0, 0.0}, at::kDouble);
  const Score s = score(predicted, truth, weights);
  EXPECT_EQ(s.count, 1);
  EXPECT_EQ(s.rmse, 2);
  EXPECT_TRUE(std::isnan(s.correlation));
  const at::Tensor by_time = mean_square_by_time(predicted, truth, weights);
  EXPECT_EQ(by_time[0].item<double>(), 4);
  EXPECT_TRUE(std::isnan(by_time[1].item<double>()));
  EXPECT_THROW(score(predicted, truth, at::zeros({2})), Error);
  EXPECT_THROW(score(predicted, truth.view({1, 4}), weights), Error);
  EXPECT_THROW(score(predicted, truth, at::tensor({1.0, -1.0}, at::kDouble)), Error);
}

TEST(Scores, DeparturesByStation) {
  const at::Tensor observed = at::tensor({1.0, 2.0, 3.0, kNan}, at::kDouble);
  const at::Tensor background = at::tensor({0.0, 4.0, 0.0, 0.0}, at::kDouble);
  const at::Tensor analysis = at::tensor({1.0, 3.0, 2.0, 0.0}, at::kDouble);
  const auto table = departures_by_station({"b", "a", "b", "c"}, observed, background, analysis);
  ASSERT_EQ(table.size(), 3u);  // c has no present row
  EXPECT_EQ(table[0].station, "a");
  EXPECT_EQ(table[1].station, "b");
  EXPECT_EQ(table[1].count, 2);
  EXPECT_EQ(table[1].mean_ob, 2);
  EXPECT_NEAR(table[1].rms_ob, std::sqrt(5.0), 1e-15);
  EXPECT_EQ(table[1].mean_oa, 0.5);
  EXPECT_EQ(table[2].station, "all");
  EXPECT_EQ(table[2].count, 3);
  EXPECT_NEAR(table[2].rms_oa, std::sqrt(2.0 / 3), 1e-15);
  EXPECT_THROW(departures_by_station({"a"}, observed, background, analysis), Error);
}

}  // namespace
}  // namespace halcyon::verify
