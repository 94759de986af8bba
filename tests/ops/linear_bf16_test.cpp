// SPDX-License-Identifier: Apache-2.0
// Linear layers where the processor's own products of bfloat16 are used.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "halcyon/ops/cpu_bf16.h"
#include "halcyon/ops/cpu_level.h"
#include "halcyon/ops/linear/linear.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

// also on processors whose products of bfloat16 are slow
[[maybe_unused]] const int forced = setenv("HALCYON_FAST_BF16", "1", 1);

using test::near;

struct Leaves {
  at::Tensor x, weight, bias;

  Leaves to(at::ScalarType type) const { return {x.to(type), weight.to(type), bias.to(type)}; }
  at::Tensor activated() const { return linear_layer(x, weight, bias, Activation::gelu_tanh); }
};

// Large enough to be routed; values that bfloat16 holds.
Leaves make_leaves() {
  at::manual_seed(6);
  const Leaves exact{at::randn({3, 101, 128}), at::randn({160, 128}) / 11, at::randn({160})};
  return exact.to(at::kBFloat16);
}

at::Tensor expected_of(const Leaves& leaves) {
  const auto wide = leaves.to(at::kDouble);
  return at::gelu(at::linear(wide.x, wide.weight, wide.bias), "tanh");
}

class LinearBf16 : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(has_fast_bf16());
    if (cpu_level() != CpuLevel::avx512) GTEST_SKIP() << "oneDNN multiplies bfloat16 in AVX-512";
  }
};

TEST_F(LinearBf16, GeluInTheProductWithoutGradients) {
  const auto leaves = make_leaves();
  const at::NoGradGuard no_grad;
  const auto y = leaves.activated();
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_EQ(y.sizes(), (at::IntArrayRef{3, 101, 160}));
  EXPECT_TRUE(near(y, expected_of(leaves), 4e-3));  // one rounding
  EXPECT_TRUE(test::identical(leaves.activated(), y));
}

TEST_F(LinearBf16, AutocastGivesTheSame) {
  const auto leaves = make_leaves(), wide = leaves.to(at::kFloat);
  const at::NoGradGuard no_grad;
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const auto y = wide.activated();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_TRUE(test::identical(y, leaves.activated()));
}

TEST_F(LinearBf16, GradientsAreThoseOfTheLayer) {
  auto leaves = make_leaves();
  for (auto* t : {&leaves.x, &leaves.weight, &leaves.bias}) t->requires_grad_();
  const auto y = leaves.activated();
  EXPECT_TRUE(near(y, expected_of(leaves), 1e-2));  // two roundings
  const auto g = at::randn(y.sizes()).to(at::kBFloat16);
  y.backward(g);
  Leaves wide = leaves.to(at::kDouble);
  for (auto* t : {&wide.x, &wide.weight, &wide.bias}) *t = t->detach().requires_grad_();
  expected_of(wide).backward(g.to(at::kDouble));
  EXPECT_TRUE(near(leaves.x.grad(), wide.x.grad(), test::kBf16));
  EXPECT_TRUE(near(leaves.weight.grad(), wide.weight.grad(), test::kBf16));
  EXPECT_TRUE(near(leaves.bias.grad(), wide.bias.grad(), test::kBf16));
}

}  // namespace
}  // namespace halcyon
