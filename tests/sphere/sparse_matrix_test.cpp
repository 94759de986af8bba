// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/sparse_matrix.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "tests/sphere/errors.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"

namespace halcyon {
namespace {

using test::expect_error;
using test::identical;
using test::near;

// [1 0 2 0]
// [0 0 0 0]
// [0 3 0 1]
SparseMatrix small() {
  return SparseMatrix({3, 4, {0, 2, 2, 4}, {0, 2, 1, 3}, {1, 2, 3, 1}});
}

at::Tensor doubles(const std::vector<double>& v) {
  return at::tensor(v, at::kDouble);
}

TEST(SparseMatrix, Multiplies) {
  const auto y = small().apply(doubles({1, 10, 100, 1000}));
  EXPECT_TRUE(identical(y, doubles({201, NAN, 1030})));
  EXPECT_TRUE(identical(small().adjoint(doubles({1, 5, 10})), doubles({1, 30, 2, 10})));
}

TEST(SparseMatrix, BatchesDtypesAndStrides) {
  at::manual_seed(1);
  const auto x = at::randn({4, 3, 2}, at::kDouble).permute({2, 1, 0});
  const auto y = small().apply(x);
  ASSERT_EQ(y.sizes(), at::IntArrayRef({2, 3, 3}));
  EXPECT_TRUE(near(y.select(-1, 0), x.select(-1, 0) + 2 * x.select(-1, 2), 1e-15));
  EXPECT_TRUE(near(y.select(-1, 2), 3 * x.select(-1, 1) + x.select(-1, 3), 1e-15));
  for (const auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const auto exact = small().apply(x.to(dtype).to(at::kDouble)).to(dtype);
    EXPECT_TRUE(identical(small().apply(x.to(dtype)), exact));
  }
  EXPECT_EQ(small().apply(at::zeros({0, 4})).sizes(), at::IntArrayRef({0, 3}));
  EXPECT_EQ(small().apply(at::zeros({2, 0, 4})).sizes(), at::IntArrayRef({2, 0, 3}));
}

TEST(SparseMatrix, MissingValues) {
  const auto x = doubles({NAN, 10, 100, NAN});
  EXPECT_TRUE(identical(small().apply(x), doubles({NAN, NAN, NAN})));
  // 2 of 3 and 3 of 4 parts are there
  EXPECT_TRUE(near(small().apply(x, Missing::renormalise), doubles({300, NAN, 40}), 1e-15));
  // 1 of 3 is less than half
  EXPECT_TRUE(near(small().apply(doubles({1, NAN, NAN, 1}), Missing::renormalise),
                   doubles({NAN, NAN, NAN}), 0));
  const auto whole = doubles({1, 2, 3, 4});
  EXPECT_TRUE(near(small().apply(whole, Missing::renormalise), small().apply(whole), 1e-15));
}

TEST(SparseMatrix, Gradients) {
  at::manual_seed(2);
  const auto x = at::randn({2, 4}, at::kDouble).requires_grad_();
  const auto rows = at::tensor({0, 2});
  EXPECT_TRUE(test::gradcheck(
      [&] { return std::vector{small().apply(x).index_select(1, rows).pow(2)}; }, {x}));
  const auto y = at::randn({2, 3}, at::kDouble).requires_grad_();
  EXPECT_TRUE(test::gradcheck([&] { return std::vector{small().adjoint(y).sin()}; }, {y}));

  const auto full = doubles({3, 5, 2, 7}).requires_grad_();
  const auto hole = doubles({0, 0, 0, NAN});
  EXPECT_TRUE(test::gradcheck(
      [&] {
        return std::vector{
            small().apply(full + hole, Missing::renormalise).index_select(0, rows).pow(2)};
      },
      {full}));
  // an output without inputs is NaN but takes no gradient
  const auto z = at::ones({4}).requires_grad_();
  small().apply(z).sum().backward();
  EXPECT_TRUE(identical(z.grad(), at::tensor({1.f, 3.f, 2.f, 1.f})));
}

TEST(SparseMatrix, SecondDerivatives) {
  const auto x = doubles({1, 2, 3, 4}).requires_grad_();
  const auto y = small().apply(x)[2].pow(3);
  const auto g = torch::autograd::grad({y}, {x}, {}, true, true)[0];
  const auto h = torch::autograd::grad({g[1]}, {x})[0];
  // d2/dx1 dx of (3 x1 + x3)^3 = 6 (3 x1 + x3) * 3 * (3, 1)
  EXPECT_TRUE(near(h, doubles({0, 540, 0, 180}), 1e-14));
}

TEST(SparseMatrix, ResultsDoNotDependOnThreads) {
  at::manual_seed(3);
  CsrData m{20000, 500, {0}, {}, {}};
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int k = 0; k < 7; ++k) {
      m.column.push_back(static_cast<int32_t>((r * 31 + k * 17) % 500));
      m.weight.push_back(std::sin(static_cast<double>(r + k)));
    }
    m.row_start.push_back(static_cast<int64_t>(m.column.size()));
  }
  const SparseMatrix matrix(m);
  const auto x = at::randn({3, 500}), y = at::randn({3, 20000});
  const int threads = at::get_num_threads();
  const auto many = matrix.apply(x), back = matrix.adjoint(y);
  at::set_num_threads(1);
  EXPECT_TRUE(identical(matrix.apply(x), many));
  EXPECT_TRUE(identical(matrix.adjoint(y), back));
  at::set_num_threads(threads);
  EXPECT_NEAR((many * y).sum(at::kDouble).item<double>(),
              (back * x).sum(at::kDouble).item<double>(), 2e-3);
}

TEST(SparseMatrix, RefusesBadInput) {
  expect_error([] { small().apply(at::zeros({2, 3})); }, "(..., 4), got [2, 3]");
  expect_error([] { small().apply(at::zeros({})); }, "(..., 4), got []");
  expect_error([] { small().apply(at::zeros({4}, at::kLong)); }, "floating-point");
  expect_error([] { small().adjoint(at::zeros({4})); }, "(..., 3)");
  expect_error([] { SparseMatrix({1, 1, {0, 1}, {1}, {1}}); }, "columns in 0..0, got 1");
  expect_error([] { SparseMatrix({1, 1, {0, 1}, {-1}, {1}}); }, "got -1");
  expect_error([] { SparseMatrix({2, 1, {0, 1}, {0}, {1}}); }, "row starts");
  expect_error([] { SparseMatrix({2, 1, {0, 2, 1}, {0}, {1}}); }, "do not fall");
  expect_error([] { SparseMatrix({1, 1, {0, 1}, {0}, {}}); }, "row starts");
}

}  // namespace
}  // namespace halcyon
