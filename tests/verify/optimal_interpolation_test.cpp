// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/optimal_interpolation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "tests/support/compare.h"

namespace halcyon::verify {
namespace {

using test::near;

constexpr int64_t kStep = 21600;

std::vector<int64_t> steps(int64_t count) {
  std::vector<int64_t> times;
  for (int64_t t = 0; t < count; ++t) times.push_back(t * kStep);
  return times;
}

// Site n takes the mean of the points n and n + 1.
SparseMatrix averaging(int64_t sites, int64_t points) {
  CsrData data{.rows = sites, .columns = points, .row_start = {0}, .column = {}, .weight = {}};
  for (int64_t n = 0; n < sites; ++n) {
    for (const int64_t x : {n, n + 1}) {
      data.column.push_back(static_cast<int32_t>(x));
      data.weight.push_back(0.5);
    }
    data.row_start.push_back(2 * (n + 1));
  }
  return SparseMatrix(std::move(data));
}

at::Tensor dense(const SparseMatrix& h) {
  return h.apply(at::eye(h.columns(), at::kDouble)).t().contiguous();
}

TEST(OptimalInterpolation, OnePointByHand) {
  // variance (1 + 9) / 2 = 5, error variance 5: half of the departure is believed
  const at::Tensor anomalies = at::tensor({1.0, -3.0}, at::kDouble).view({2, 1});
  const OptimalInterpolation interpolation(anomalies, steps(2));
  const SparseMatrix h(
      CsrData{.rows = 1, .columns = 1, .row_start = {0, 1}, .column = {0}, .weight = {1.0}});
  const at::Tensor analysis = interpolation.analyse(h, at::tensor({5.0}, at::kDouble),
                                                    at::tensor({4.0}, at::kDouble).view({1, 1, 1}));
  EXPECT_NEAR(analysis.item<double>(), 2, 1e-14);
}

TEST(OptimalInterpolation, MatchesTheDenseFormula) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({40, 7}, at::kDouble), y = at::randn({5, 1, 4}, at::kDouble);
  const at::Tensor r = at::rand({4}, at::kDouble) + 0.5;
  const SparseMatrix h = averaging(4, 7);
  const at::Tensor b = at::matmul(x.t(), x) / 40, hd = dense(h);
  const at::Tensor gain =
      at::linalg_solve(at::matmul(at::matmul(hd, b), hd.t()) + at::diag(r), at::matmul(hd, b));
  const OptimalInterpolation interpolation(x, steps(40));
  EXPECT_TRUE(near(interpolation.analyse(h, r, y), at::matmul(y.select(1, 0), gain), 1e-12));
}

// With lags the estimate is that of the stacked state, covariances taken over pairs of times.
TEST(OptimalInterpolation, LagsMatchTheStackedFormula) {
  at::manual_seed(2);
  const int64_t n = 60, points = 5, sites = 3;
  at::Tensor x = at::randn({n, points}, at::kDouble);
  for (int64_t t = 1; t < n; ++t) x[t] = 0.8 * x[t - 1] + 0.6 * x[t];
  const auto c = [&](int64_t d) {
    return at::matmul(x.narrow(0, d, n - d).t(), x.narrow(0, 0, n - d)) /
           static_cast<double>(n - d);
  };
  const SparseMatrix h = averaging(sites, points);
  const at::Tensor hd = dense(h), r = at::full({sites}, 0.3, at::kDouble);
  std::vector<at::Tensor> rows, right;
  const std::vector<int64_t> lags = {0, 1, 3};
  for (const int64_t a : lags) {
    std::vector<at::Tensor> row;
    for (const int64_t b : lags) {
      const at::Tensor state = b >= a ? c(b - a) : c(a - b).t();
      row.push_back(at::matmul(at::matmul(hd, state), hd.t()));
    }
    rows.push_back(at::cat(row, 1));
    right.push_back(at::matmul(hd, c(a).t()));  // covariance of the past sites with the present
  }
  const at::Tensor gain = at::linalg_solve(at::cat(rows) + at::diag(r.repeat({3})), at::cat(right));
  const at::Tensor y = at::randn({6, 3, sites}, at::kDouble);
  const OptimalInterpolation interpolation(x, steps(n), {0, kStep, 3 * kStep});
  const at::Tensor analysis = interpolation.analyse(h, r, y);
  EXPECT_TRUE(near(analysis, at::matmul(y.view({6, 9}), gain), 1e-11));

  // what is missing leaves the system: the same as a network without it
  at::Tensor holes = y.clone();
  holes.index_put_({1, at::indexing::Slice(), 2}, std::nan(""));
  holes[4].fill_(std::nan(""));
  const at::Tensor partial = interpolation.analyse(h, r, holes);
  EXPECT_TRUE(near(partial[0], analysis[0], 1e-12));
  const SparseMatrix two = averaging(2, points);
  const at::Tensor of_two = interpolation.analyse(two, r.narrow(0, 0, 2), y.narrow(2, 0, 2));
  EXPECT_TRUE(near(partial[1], of_two[1], 1e-11));
  EXPECT_EQ(partial[4].abs().max().item<double>(), 0);  // nothing observed: the climatology
}

TEST(OptimalInterpolation, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({4, 5}, at::kDouble);
  EXPECT_THROW(OptimalInterpolation(x, steps(3)), Error);
  EXPECT_THROW(OptimalInterpolation(x, steps(4), {kStep}), Error);
  EXPECT_THROW(OptimalInterpolation(x, steps(4), {0, 5}), Error);
  EXPECT_THROW(OptimalInterpolation(x, steps(4), {0, kStep, kStep}), Error);
  EXPECT_THROW(OptimalInterpolation(at::full({4, 5}, std::nan("")), steps(4)), Error);
  const OptimalInterpolation interpolation(x, steps(4));
  const at::Tensor r = at::ones({2}, at::kDouble), y = at::ones({1, 1, 2}, at::kDouble);
  EXPECT_NO_THROW(interpolation.analyse(averaging(2, 5), r, y));
  EXPECT_THROW(interpolation.analyse(averaging(2, 6), r, y), Error);
  EXPECT_THROW(interpolation.analyse(averaging(2, 5), at::zeros({2}), y), Error);
  EXPECT_THROW(interpolation.analyse(averaging(2, 5), r, y.view({1, 2, 1})), Error);
}

}  // namespace
}  // namespace halcyon::verify
