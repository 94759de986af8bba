// SPDX-License-Identifier: Apache-2.0
// Ten million observations made tokens and back, beside the composition on sampled rows.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "halcyon/ops/film/backends.h"
#include "halcyon/ops/film/film_tokenizer.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using namespace film_detail;

constexpr int64_t kRows = 10'000'000, kFeatures = 10, kTable = 4, kIds = 40, kHidden = 16,
                  kOut = 16;

Inputs make_inputs() {
  at::manual_seed(4);
  constexpr int64_t kCond = kFeatures + 3 * kTable;
  const auto ids = [] { return at::randint(kIds, {kRows}, at::kInt); };
  Inputs in{
      {at::randn({kRows}), at::randn({kRows, kFeatures}),
       at::randn({kHidden, kCond}) / std::sqrt(double(kCond)), at::randn({kHidden}) * 0.3,
       at::randn({kHidden}) + 1, at::randn({kHidden}) * 0.3,
       at::randn({2 * kOut, kHidden}) / std::sqrt(double(kHidden)), at::randn({2 * kOut}) * 0.3,
       at::randn({kIds, kTable}), at::randn({kIds, kTable}), at::randn({kIds, kTable})},
      {ids(), ids(), ids()},
      1e-5};
  for (auto& t : in.floats) t.requires_grad_();
  return in;
}

// The inputs of some observations, in double.
Inputs of_rows(const Inputs& in, const at::Tensor& rows) {
  Inputs some = in;
  for (size_t i = 0; i < some.floats.size(); ++i) {
    auto t = in.floats[i].detach();
    if (i == kObs || i == kMeta) t = t.index_select(0, rows);
    some.floats[i] = t.to(at::kDouble).requires_grad_();
  }
  for (auto& t : some.ids) t = t.index_select(0, rows);
  return some;
}

// The sum over rows of a * b in double, some rows at a time.
at::Tensor row_sum(const at::Tensor& a, const at::Tensor& b) {
  constexpr int64_t kSome = 1 << 20;
  at::Tensor sum = at::zeros({a.size(1)}, at::kDouble);
  for (int64_t i = 0; i < a.size(0); i += kSome) {
    const auto x = a.detach().slice(0, i, i + kSome).to(at::kDouble);
    sum += x.mul_(b.detach().slice(0, i, i + kSome)).sum(0);
  }
  return sum;
}

double product(const at::Tensor& a, const at::Tensor& b) {
  return at::sum(a.detach().to(at::kDouble) * b.detach()).item<double>();
}

TEST(FilmLarge, TenMillionObservations) {
  const auto in = make_inputs();
  const auto& f = in.floats;
  const auto y = film_tokenizer(f[kObs], f[kMeta], in.ids[0], in.ids[1], in.ids[2], f[kTables],
                                f[kTables + 1], f[kTables + 2], f[kWeight1], f[kBias1],
                                f[kNormWeight], f[kNormBias], f[kWeight2], f[kBias2], in.eps);
  const auto grad_out = at::randn_like(y);
  y.backward(grad_out);

  const auto rows = at::cat({at::arange(100, at::kLong), at::randint(kRows, {2000}, at::kLong),
                             at::arange(kRows - 100, kRows, at::kLong)});
  const auto chosen = std::get<0>(at::_unique(rows));
  const auto sample = of_rows(in, chosen);
  const auto expected = composed(sample);
  expected.backward(grad_out.index_select(0, chosen).to(at::kDouble));
  const auto at_rows = [&](const at::Tensor& t) { return t.detach().index_select(0, chosen); };
  EXPECT_TRUE(test::near(at_rows(y), expected, test::kLayer));
  EXPECT_TRUE(test::near(at_rows(f[kObs].grad()), sample.floats[kObs].grad(), test::kGradient));
  EXPECT_TRUE(test::near(at_rows(f[kMeta].grad()), sample.floats[kMeta].grad(), test::kGradient));

  // every row enters: the gradient of beta's bias, and the last layer, in which tokens are linear
  const auto ones = at::ones({1, 1}).expand({kRows, 1});
  EXPECT_TRUE(
      test::near(f[kBias2].grad().slice(0, kOut), row_sum(grad_out, ones), test::kGradient));
  const double linear =
      product(f[kWeight2], f[kWeight2].grad()) + product(f[kBias2], f[kBias2].grad());
  EXPECT_NEAR(linear, row_sum(y, grad_out).sum().item<double>(), 1e-3 * std::sqrt(double(kRows)));
}

}  // namespace
}  // namespace halcyon
