// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/posterior_mean.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/base/error.h"
#include "halcyon/verify/optimal_interpolation.h"
#include "tests/support/compare.h"

namespace halcyon::assimilation {
namespace {

using test::near;

constexpr double kSinglePrecision = 1e-4;

// Site n takes 0.7 of point n and 0.3 of point n + 1.
SparseMatrix between_points(int64_t sites, int64_t points) {
  CsrData data{.rows = sites, .columns = points, .row_start = {0}, .column = {}, .weight = {}};
  for (int64_t n = 0; n < sites; ++n) {
    data.column.push_back(static_cast<int32_t>(n));
    data.column.push_back(static_cast<int32_t>(n + 1));
    data.weight.push_back(0.7);
    data.weight.push_back(0.3);
    data.row_start.push_back(2 * (n + 1));
  }
  return SparseMatrix(std::move(data));
}

// A covariance of full rank.
at::Tensor covariance_of(int64_t size) {
  const auto x = at::randn({2 * size, size}, at::kDouble);
  return at::matmul(x.t(), x) / (2.0 * static_cast<double>(size));
}

TEST(PosteriorMean, IsTheDenseFormula) {
  at::manual_seed(1);
  constexpr int64_t kPoints = 6, kAges = 2, kSites = 4;
  const auto b = covariance_of(kAges * kPoints);
  const auto sites = between_points(kSites, kPoints);
  const std::vector<Report> reports = {{0, 0, 0.5f}, {2, 0, 1.0f}, {2, 1, 2.0f}, {3, 1, 0.25f}};
  const auto to_sites = sites.apply(at::eye(kPoints, at::kDouble)).t();  // (sites, points)
  auto h = at::zeros({4, kAges * kPoints}, at::kDouble);
  auto r = at::zeros({4, 4}, at::kDouble);
  for (int64_t i = 0; i < 4; ++i) {
    h[i].slice(0, reports[i].age * kPoints, (reports[i].age + 1) * kPoints)
        .copy_(to_sites[reports[i].site]);
    r[i][i] = reports[i].error_variance;
  }
  const auto y = at::randn({3, 4}, at::kDouble);
  const auto hb = at::matmul(h, b);
  const auto gain = at::linalg_solve(at::matmul(hb, h.t()) + r, hb);  // (reports, state)
  const auto expected = at::matmul(y, gain).slice(1, 0, kPoints);
  const auto mean = posterior_mean(b.to(at::kFloat), sites, reports, y.to(at::kFloat));
  EXPECT_EQ(mean.scalar_type(), at::kFloat);
  EXPECT_TRUE(near(mean, expected, kSinglePrecision));
}

TEST(PosteriorMean, IsOptimalInterpolationWithTheSameCovariance) {
  at::manual_seed(2);
  constexpr int64_t kTimes = 80, kPoints = 7, kSites = 5, kStep = 21600;
  auto x = at::randn({kTimes, kPoints}, at::kDouble);
  for (int64_t t = 1; t < kTimes; ++t) x[t] = 0.8 * x[t - 1] + 0.6 * x[t];
  std::vector<int64_t> times;
  for (int64_t t = 0; t < kTimes; ++t) times.push_back(t * kStep);
  const auto c = [&](int64_t lag) {
    const int64_t pairs = kTimes - lag;
    return at::matmul(x.slice(0, lag).t(), x.slice(0, 0, pairs)) / static_cast<double>(pairs);
  };
  const auto b = at::cat({at::cat({c(0), c(1)}, 1), at::cat({c(1).t(), c(0)}, 1)});
  const auto sites = between_points(kSites, kPoints);
  const auto r = at::full({kSites}, 0.8, at::kDouble);
  const auto y = at::randn({4, 2, kSites}, at::kDouble);
  std::vector<Report> reports;
  for (int64_t age = 0; age < 2; ++age)
    for (int64_t s = 0; s < kSites; ++s) reports.push_back({s, age, 0.8f});
  const verify::OptimalInterpolation interpolation(x, times, {0, kStep});
  const auto expected = interpolation.analyse(sites, r, y);
  EXPECT_TRUE(
      near(posterior_mean(b.to(at::kFloat), sites, reports, y.reshape({4, -1}).to(at::kFloat)),
           expected, kSinglePrecision));
}

TEST(PosteriorMean, NoObservationGivesTheMean) {
  const auto mean = posterior_mean(at::eye(6), between_points(2, 6), {}, at::empty({3, 0}));
  EXPECT_TRUE(test::identical(mean, at::zeros({3, 6})));
}

TEST(PosteriorMean, APerfectObservationIsBelieved) {
  at::manual_seed(3);
  const auto sites = between_points(3, 6);
  const auto mean = posterior_mean(covariance_of(6).to(at::kFloat), sites, {{1, 0, 0.0f}},
                                   at::tensor({2.5f, -1.0f}).view({2, 1}));
  const auto there = sites.apply(mean).select(1, 1);
  EXPECT_TRUE(near(there, at::tensor({2.5f, -1.0f}), 1e-5));
}

TEST(PosteriorMean, AWorthlessObservationIsNot) {
  const auto mean =
      posterior_mean(at::eye(6), between_points(3, 6), {{1, 0, 1e12f}}, at::full({1, 1}, 5.0f));
  EXPECT_LT(mean.abs().max().item<float>(), 1e-9f);
}

TEST(PosteriorMean, RefusesDeparturesOfOtherReports) {
  EXPECT_THROW(posterior_mean(at::eye(6), between_points(3, 6), {{1, 0, 1.0f}}, at::ones({1, 2})),
               Error);
  EXPECT_THROW(posterior_mean(at::eye(6), between_points(3, 6), {{1, 0, 1.0f}}, at::ones({1})),
               Error);
}

}  // namespace
}  // namespace halcyon::assimilation
