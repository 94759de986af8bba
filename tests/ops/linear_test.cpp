// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/linear/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>

#include "halcyon/ops/linear/routes.h"
#include "halcyon/ops/tuning/autotuner.h"
#include "tests/ops/ops_test.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

// also on processors whose own products of bfloat16 are fast
[[maybe_unused]] const int forced = setenv("HALCYON_FAST_BF16", "0", 1);

using linear_detail::Library;
using test::near;

struct Shape {
  int64_t rows, in, out;
};
// A row, a column, odd sizes, whole vectors, and more than one block of any library.
const std::vector<Shape> kShapes{{1, 1, 1},    {1, 300, 77},   {257, 1, 5},     {5, 33, 1},
                                 {64, 64, 64}, {130, 257, 99}, {1025, 384, 130}};
constexpr double kBound = 3e-6;

std::vector<Library> libraries() {
  std::vector<Library> all{Library::aten, Library::own};
  if (linear_detail::has_onednn()) all.push_back(Library::onednn);
  return all;
}

// Rows of a wider tensor: not contiguous, as a slice of a joint projection.
at::Tensor strided(const at::Tensor& t) {
  return at::cat({t, t}, 1).slice(1, 0, t.size(1));
}

TEST(Linear, EveryLibraryAgreesWithTheProductInDouble) {
  at::manual_seed(1);
  for (const auto& [rows, in, out] : kShapes) {
    for (const bool contiguous : {true, false}) {
      const auto make = [&](int64_t a, int64_t b) {
        const auto t = at::randn({a, b});
        return contiguous ? t : strided(t);
      };
      const auto x = make(rows, in), w = make(out, in), g = make(rows, out), b = at::randn({out});
      const auto X = x.to(at::kDouble), W = w.to(at::kDouble), G = g.to(at::kDouble);
      const auto y = at::mm(X, W.t());
      for (const auto library : libraries()) {
        SCOPED_TRACE(testing::Message() << rows << " " << in << " " << out << " contiguous "
                                        << contiguous << " library " << static_cast<int>(library));
        const auto run = [&](const at::Tensor& bias, Activation a) {
          return linear_detail::forward(x, w, bias, a, library);
        };
        EXPECT_TRUE(near(run({}, Activation::none), y, kBound));
        EXPECT_TRUE(near(run(b, Activation::none), y + b, kBound));
        EXPECT_TRUE(near(run(b, Activation::gelu_tanh), at::gelu(y + b, "tanh"), kBound));
        EXPECT_TRUE(near(linear_detail::input_gradient(g, w, library), at::mm(G, W), kBound));
        EXPECT_TRUE(near(linear_detail::weight_gradient(g, x, library), at::mm(G.t(), X), kBound));
      }
    }
  }
}

// Blocks of 96 rows, panels of 64 columns, 128 and 2048 steps of the depth, and what is left of
// them, in every instruction set and on any number of threads.
TEST(Linear, TransposedProductInEveryInstructionSet) {
  at::manual_seed(5);
  for (const auto& [depth, rows, columns] : {Shape{1, 1, 1},
                                             {127, 95, 63},
                                             {128, 96, 64},
                                             {129, 97, 65},
                                             {700, 130, 200},
                                             {2049, 70, 66},
                                             {0, 3, 2}}) {
    const auto a = at::randn({depth, rows}), b = at::randn({depth, columns});
    const auto expected = at::mm(a.t().to(at::kDouble), b.to(at::kDouble));
    for (const auto level : test::levels()) {
      const auto run = [&] { return linear_detail::transposed_product(strided(a), b, level); };
      EXPECT_TRUE(near(run(), expected, kBound)) << depth << " level " << static_cast<int>(level);
      test::expect_same_bits("transposed product", [&] { return std::vector{run()}; });
    }
  }
}

// A bias or rows that are all one number in memory: oneDNN would read on behind it.
TEST(Linear, OperandsOfStrideZeroAreReadAsTheyAre) {
  at::manual_seed(4);
  const auto w = at::randn({64, 32}), x = at::randn({100, 32}), g = at::randn({100, 64});
  const auto one_bias = at::randn({1}).expand({64}), one_row = at::randn({1, 32}).expand({100, 32}),
             ones = at::ones({}).expand({100, 64}),
             one_weight = at::randn({1, 32}).expand({64, 32});
  const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
  const auto product = [&](const at::Tensor& a, const at::Tensor& b) {
    return at::mm(wide(a), wide(b));
  };
  for (const auto library : libraries()) {
    SCOPED_TRACE(testing::Message() << "library " << static_cast<int>(library));
    const auto forward = [&](const at::Tensor& rows, const at::Tensor& weight) {
      return linear_detail::forward(rows, weight, one_bias, Activation::none, library);
    };
    const auto bias = wide(one_bias);
    EXPECT_TRUE(near(forward(x, w), product(x, w.t()) + bias, kBound));
    EXPECT_TRUE(near(forward(one_row, w), product(one_row, w.t()) + bias, kBound));
    EXPECT_TRUE(near(forward(x, one_weight), product(x, one_weight.t()) + bias, kBound));
    for (const auto& cotangent : {g, ones}) {
      EXPECT_TRUE(near(linear_detail::input_gradient(cotangent, w, library), product(cotangent, w),
                       kBound));
      for (const auto& rows : {x, one_row}) {
        EXPECT_TRUE(near(linear_detail::weight_gradient(cotangent, rows, library),
                         product(cotangent.t(), rows), kBound));
      }
    }
  }
}

// x, weight and bias of a product that is large enough to be routed, requiring gradients.
std::vector<at::Tensor> large_leaves() {
  at::manual_seed(2);
  return {at::randn({2, 150, 128}).requires_grad_(), at::randn({160, 128}).requires_grad_(),
          at::randn({160}).requires_grad_()};
}

std::vector<at::Tensor> gradients(const at::Tensor& y, const std::vector<at::Tensor>& leaves,
                                  const at::Tensor& cotangent, bool again = false) {
  return torch::autograd::grad({y}, leaves, {cotangent.to(y.scalar_type())}, again, again);
}

TEST(Linear, GradientsAgreeWithTorchInDouble) {
  const auto leaves = large_leaves();
  std::vector<at::Tensor> wide;
  for (const auto& t : leaves) wide.push_back(t.detach().to(at::kDouble).requires_grad_());
  const auto g = at::randn({2, 150, 160});
  for (const auto activation : {Activation::none, Activation::gelu_tanh}) {
    const auto y = linear_layer(leaves[0], leaves[1], leaves[2], activation);
    auto expected = at::linear(wide[0], wide[1], wide[2]);
    if (activation == Activation::gelu_tanh) expected = at::gelu(expected, "tanh");
    EXPECT_TRUE(near(y, expected, kBound));
    const auto ours = gradients(y, leaves, g), theirs = gradients(expected, wide, g);
    for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(near(ours[i], theirs[i], 1e-5)) << i;
    {
      const at::NoGradGuard inference;
      EXPECT_TRUE(
          near(linear_layer(leaves[0], leaves[1], leaves[2], activation), expected, kBound));
    }
  }
  // without a bias, and with a gradient for one input alone
  const auto frozen = leaves[1].detach();
  EXPECT_TRUE(near(gradients(linear_layer(leaves[0], frozen, {}), {leaves[0]}, g)[0],
                   gradients(at::linear(wide[0], wide[1]), {wide[0]}, g)[0], 1e-5));
}

TEST(Linear, SecondDerivativesAgreeWithTorch) {
  const auto leaves = large_leaves();
  const auto g = at::randn({2, 150, 160}), h = at::randn({2, 150, 128});
  const auto second = [&](const at::Tensor& y) {
    const auto first = gradients(y.square(), {leaves[0]}, g, true)[0];
    return gradients(first, {leaves[0], leaves[1], leaves[2]}, h);
  };
  const auto ours = second(linear_layer(leaves[0], leaves[1], leaves[2]));
  const auto torchs = second(at::linear(leaves[0], leaves[1], leaves[2]));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(near(ours[i], torchs[i], 1e-5)) << i;
}

TEST(Linear, OtherTypesAndAutocastAreTorchs) {
  const auto leaves = large_leaves();
  const auto check = [](const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
    EXPECT_TRUE(test::identical(linear_layer(x, w, b), at::linear(x, w, b)));
  };
  for (const auto type : {at::kDouble, at::kHalf})
    check(leaves[0].to(type), leaves[1].to(type), leaves[2].to(type));
  check(at::randn({3, 4}).to(at::kBFloat16), at::randn({5, 4}).to(at::kBFloat16), at::Tensor());
  check(at::randn({3, 4}), at::randn({5, 4}), at::randn({5}));
  check(at::randn({0, 4}), at::randn({5, 4}), at::Tensor());
  at::autocast::set_autocast_enabled(at::kCPU, true);
  EXPECT_EQ(linear_layer(leaves[0], leaves[1], leaves[2]).scalar_type(), at::kBFloat16);
  at::autocast::set_autocast_enabled(at::kCPU, false);
  at::autocast::clear_cache();
  EXPECT_THROW(linear_layer(at::randn({300, 127}), leaves[1], leaves[2]), c10::Error);
}

// Results and gradients have the types that torch gives them, and no more error than rounding.
TEST(Linear, Bfloat16InFloat) {
  const auto floats = large_leaves();
  const auto g = at::randn({2, 150, 160});
  for (const bool autocast : {false, true}) {
    std::vector<at::Tensor> leaves, wide;
    for (const auto& t : floats) {
      leaves.push_back(t.detach().to(autocast ? at::kFloat : at::kBFloat16).requires_grad_());
      wide.push_back(leaves.back().detach().to(at::kDouble).requires_grad_());
    }
    for (const bool bias : {true, false}) {
      at::autocast::set_autocast_enabled(at::kCPU, autocast);
      const auto y = linear_layer(leaves[0], leaves[1], bias ? leaves[2] : at::Tensor());
      at::Tensor activated;
      {
        const at::NoGradGuard inference;
        activated = linear_layer(leaves[0], leaves[1], leaves[2], Activation::gelu_tanh);
      }
      at::autocast::set_autocast_enabled(at::kCPU, false);
      at::autocast::clear_cache();
      EXPECT_EQ(y.scalar_type(), at::kBFloat16);
      EXPECT_EQ(activated.scalar_type(), at::kBFloat16);
      const auto expected = at::linear(wide[0], wide[1], bias ? wide[2] : at::Tensor());
      constexpr double kRounding = 1.0 / 256;
      EXPECT_TRUE(near(y, expected, kRounding));
      EXPECT_TRUE(
          near(activated, at::gelu(at::linear(wide[0], wide[1], wide[2]), "tanh"), kRounding));
      const std::vector<at::Tensor> of(leaves.begin(), leaves.end() - (bias ? 0 : 1)),
          of_wide(wide.begin(), wide.end() - (bias ? 0 : 1));
      const auto ours = gradients(y, of, g);
      const auto theirs = gradients(expected, of_wide, g.to(at::kBFloat16));
      for (size_t i = 0; i < ours.size(); ++i) {
        EXPECT_EQ(ours[i].scalar_type(), leaves[i].scalar_type());
        EXPECT_TRUE(near(ours[i], theirs[i], kRounding)) << i;
      }
    }
  }
}

TEST(Linear, TheAutotunerChangesNothingButTheRoute) {
  const auto leaves = large_leaves();
  const auto g = at::randn({2, 150, 160});
  const auto plain = gradients(linear_layer(leaves[0], leaves[1], leaves[2]), leaves, g);
  tuning::forget_choices();
  use_autotuner({true, false, 1, 2}, {true, false, 1, 2});
  const auto y = linear_layer(leaves[0], leaves[1], leaves[2]);
  const auto tuned = gradients(y, leaves, g);
  disable_autotuner();
  EXPECT_TRUE(near(y, at::linear(leaves[0], leaves[1], leaves[2]), kBound));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(near(tuned[i], plain[i], 1e-5)) << i;
}

// A batch more or some tokens less must not stall a training run.
TEST(Linear, OtherCountsOfRowsInTheSameBucketAreNotMeasuredAgain) {
  const auto w = at::randn({160, 128}).requires_grad_(), b = at::randn({160}).requires_grad_();
  const auto problems = [&](int64_t rows) {
    const auto x = at::randn({rows, 128}).requires_grad_();
    gradients(linear_layer(x, w, b), {x, w, b}, at::randn({rows, 160}));
    return tuning::chosen().size();
  };
  tuning::forget_choices();
  use_autotuner({true, false, 0, 1}, {true, false, 0, 1});
  EXPECT_EQ(problems(300), 3u);  // forward and two gradients
  for (const int64_t rows : {301, 257, 512}) EXPECT_EQ(problems(rows), 3u) << rows;
  EXPECT_EQ(problems(513), 6u);
  EXPECT_EQ(problems(1024), 6u);
  disable_autotuner();
}

}  // namespace
}  // namespace halcyon
