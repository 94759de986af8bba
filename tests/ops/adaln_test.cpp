// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/adaln.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include "tests/ops/ops_test.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/gradcheck.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using test::expect_error;

TEST(AdaLN, Goldens) {
  HALCYON_NEEDS_SHARED();
  const auto g = test::golden("healda/adaln_ops");
  const auto x = g.at("in.x");
  EXPECT_TRUE(
      test::near(modulate(x, g.at("in.shift"), g.at("in.scale")), g.at("out.modulate"), 1e-6));
  EXPECT_TRUE(test::near(gated_residual(x, g.at("in.branch"), g.at("in.gate")),
                         g.at("out.gated_residual"), 1e-6));
}

TEST(AdaLN, LiteralValuesInRankThreeAndFour) {
  const auto x = torch::tensor({{{1.f, 2.f}, {3.f, 4.f}}});
  const auto shift = torch::tensor({{10.f, 20.f}}), scale = torch::tensor({{1.f, -1.f}});
  const auto modulated = torch::tensor({{{12.f, 20.f}, {16.f, 20.f}}});
  EXPECT_TRUE(test::identical(modulate(x, shift, scale), modulated));
  EXPECT_TRUE(test::identical(modulate(x.unsqueeze(1), shift, scale), modulated.unsqueeze(1)));
  EXPECT_TRUE(
      test::identical(gated_residual(x, x, scale), torch::tensor({{{2.f, 0.f}, {6.f, 0.f}}})));
  EXPECT_EQ(modulate(torch::zeros({1, 0, 2}), shift, scale).numel(), 0);
  EXPECT_EQ(modulate(x.to(torch::kBFloat16), shift.to(torch::kBFloat16), scale.to(torch::kBFloat16))
                .scalar_type(),
            torch::kBFloat16);
}

TEST(AdaLN, GradcheckInDouble) {
  const auto random = [](std::vector<int64_t> shape) {
    return torch::randn(shape, torch::kDouble).requires_grad_();
  };
  const auto x = random({2, 3, 2, 4}), y = random({2, 3, 2, 4}), a = random({2, 4}),
             b = random({2, 4});
  EXPECT_TRUE(test::gradcheck([&] { return std::vector{modulate(x, a, b)}; }, {x, a, b}, 1e-8));
  EXPECT_TRUE(
      test::gradcheck([&] { return std::vector{gated_residual(x, y, a)}; }, {x, y, a}, 1e-8));
}

TEST(AdaLN, RefusesWhatDoesNotFit) {
  const auto x = torch::zeros({2, 3, 4}), c = torch::zeros({2, 4});
  expect_error("rank 3 or 4", [&] { modulate(x[0], c, c); });
  expect_error("rank 3 or 4", [&] { modulate(torch::zeros({2, 3, 4, 4, 4}), c, c); });
  expect_error("shift of shape (2, 4)", [&] { modulate(x, c.slice(1, 0, 3), c); });
  expect_error("scale of shape (2, 4)", [&] { modulate(x, c, c.slice(0, 0, 1)); });
  expect_error("a floating type", [&] { modulate(x.to(torch::kInt), c, c); });
  expect_error("branch of residual's shape", [&] { gated_residual(x, x.slice(1, 0, 2), c); });
  expect_error("gate of rank 2", [&] { gated_residual(x, x, c[0]); });
}

}  // namespace
}  // namespace halcyon
