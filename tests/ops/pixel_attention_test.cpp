// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pixel_attention/pixel_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/stack.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "halcyon/ops/pixel_attention/backends.h"
#include "tests/ops/ops_test.h"
#include "tests/ops/pixel_attention_case.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/gradcheck.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using pixel_attention_detail::backward_composed;
using pixel_attention_detail::backward_cpu;
using pixel_attention_detail::forward_composed;
using pixel_attention_detail::forward_cpu;
using test::AttentionCase;
using test::AttentionInputs;
using test::expect_error;
using test::identical;
using test::levels;
using test::near;

// Shapes that meet vector widths and shapes that do not; one head, many key and value heads, runs
// longer than a block of the kernel.
const std::vector<AttentionCase> kCases{
    {64, 2, 32, 32, {3, 0, 17, 64, 1, 65, 0, 9}},
    {32, 2, 16, 20, {0, 1, 5, 0, 12, 3, 2, 0, 0, 40, 1, 7}, false},
    {16, 1, 16, 16, {130, 2}},
    {64, 4, 8, 32, {5, 6, 7, 8}},
    {1, 1, 1, 1, {1, 3, 0, 2}},
    {6, 3, 5, 7, {4, 70, 0, 1}},
    {5, 5, 33, 3, {2, 2, 200}, false},
    {34, 2, 17, 40, {9, 33}},
    {96, 1, 64, 48, {11, 12}},
};

pixel_attention_detail::Inputs raw(const AttentionInputs& in, double scale) {
  return {in.q.detach(),   in.tokens.detach(),
          in.w_k.detach(), in.w_v.detach(),
          in.value_bias(), in.cu,
          in.n_kv,         scale};
}

double default_scale(const AttentionInputs& in) {
  return 1 / std::sqrt(double(in.q.size(2)));
}

class Goldens : public testing::TestWithParam<const char*> {};

TEST_P(Goldens, ForwardAndGradients) {
  HALCYON_NEEDS_SHARED();
  const auto g = test::golden(std::string("healda/pixel_attention_") + GetParam());
  const auto n_kv = g.config.at("n_kv_heads").get<int64_t>();
  const auto run = [&](at::ScalarType type, const std::string& out, const std::string& grad,
                       double tolerance, double gradient_tolerance) {
    std::map<std::string, at::Tensor> in;
    for (const auto* name : {"Q", "tokens", "W_k", "W_v", "B_v"}) {
      const auto key = std::string("in.") + name;
      if (g.has(key)) in[name] = g.at(key).to(type).clone().requires_grad_();
    }
    const auto bias = in.contains("B_v") ? std::optional(in["B_v"]) : std::nullopt;
    for (const auto& cu : {g.at("in.cu_seqlens_k"), g.at("in.cu_seqlens_k").to(at::kLong)}) {
      const auto y = pixel_attention(in["Q"], in["tokens"], in["W_k"], in["W_v"], cu, 40, n_kv,
                                     g.config.at("scale").get<double>(), {}, bias);
      EXPECT_TRUE(near(y, g.at(out + "y"), tolerance));
      for (auto& [name, t] : in) t.mutable_grad() = at::Tensor();
      y.backward(g.at("gradout.y").to(type));
    }
    for (const auto& [name, t] : in)
      EXPECT_TRUE(near(t.grad(), g.at(grad + name), gradient_tolerance)) << name;
  };
  run(at::kFloat, "out.", "grad.in.", test::kLayer, test::kGradient);
  run(at::kDouble, "out64.", "grad64.in.", test::kDouble, test::kDouble);
}

INSTANTIATE_TEST_SUITE_P(PixelAttention, Goldens, testing::Values("q16_kv1", "q32_kv2"));

TEST(PixelAttention, EveryInstructionSetAgreesWithTheReference) {
  for (size_t i = 0; i < kCases.size(); ++i) {
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
      const AttentionInputs in(kCases[i], type);
      const double scale = default_scale(in);
      const auto expected = pixel_attention_reference(
          in.q.to(at::kDouble), in.tokens, in.w_k, in.w_v, in.cu, in.n_kv, scale, in.value_bias());
      const double bound = type == at::kFloat    ? 2e-6
                           : type == at::kDouble ? 1e-14
                                                 : 5e-3;  // the result's own rounding
      for (const auto level : levels()) {
        SCOPED_TRACE(fmt::format("case {} type {} level {}", i, c10::toString(type), int(level)));
        const auto result = forward_cpu(raw(in, scale), level);
        EXPECT_EQ(result.out.scalar_type(), type);
        EXPECT_TRUE(near(result.out, expected, bound));
      }
      EXPECT_TRUE(near(forward_composed(raw(in, scale)).out, expected, bound)) << i;
    }
  }
}

TEST(PixelAttention, EveryInstructionSetHasTheGradientsOfTheBruteForce) {
  for (size_t i = 0; i < kCases.size(); ++i) {
    AttentionInputs exact(kCases[i]);
    exact.require_grad();
    const double scale = default_scale(exact);
    const auto y = exact.brute_force(scale);
    at::manual_seed(3);
    const auto grad_out = at::randn_like(y);
    y.backward(grad_out);
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
      const AttentionInputs in(kCases[i], type);
      const double bound = type == at::kFloat ? 1e-5 : type == at::kDouble ? 1e-12 : 2e-2;
      const auto expect = [&](const pixel_attention_detail::Gradients& g) {
        EXPECT_TRUE(near(g.q, exact.q.grad(), bound));
        EXPECT_TRUE(near(g.tokens, exact.tokens.grad(), bound));
        EXPECT_TRUE(near(g.w_k, exact.w_k.grad(), bound));
        EXPECT_TRUE(near(g.w_v, exact.w_v.grad(), bound));
        if (in.b_v.defined()) {
          EXPECT_TRUE(near(g.b_v, exact.b_v.grad(), bound));
        }
      };
      for (const auto level : levels()) {
        SCOPED_TRACE(fmt::format("case {} type {} level {}", i, c10::toString(type), int(level)));
        const auto lse = forward_cpu(raw(in, scale), level).lse;
        expect(backward_cpu(raw(in, scale), lse, grad_out, level));
      }
      SCOPED_TRACE(fmt::format("case {} type {} composed", i, c10::toString(type)));
      expect(backward_composed(raw(in, scale), forward_composed(raw(in, scale)).lse, grad_out));
    }
  }
}

TEST(PixelAttention, GradcheckInDouble) {
  for (const size_t i : {1, 4, 5}) {
    AttentionInputs in(kCases[i]);
    in.require_grad();
    std::vector<at::Tensor> leaves;
    for (auto* t : in.floating()) leaves.push_back(*t);
    EXPECT_TRUE(test::gradcheck([&] { return std::vector{in.run()}; }, leaves, 1e-7)) << i;
  }
}

// Pixels so long that several threads share them, among short and empty ones.
TEST(PixelAttention, LongPixels) {
  const AttentionCase c{6, 2, 4, 12, {5, 20000, 0, 8192, 8193, 3}};
  AttentionInputs in(c, at::kFloat);
  in.q = in.q * 3;
  in.require_grad();
  const auto y = in.run();
  const auto grad_out = at::randn_like(y);
  y.backward(grad_out);
  AttentionInputs exact(c);
  exact.q = in.q.detach().to(at::kDouble);
  exact.require_grad();
  const auto expected = exact.brute_force(1 / std::sqrt(4.0));
  expected.backward(grad_out.to(at::kDouble));
  EXPECT_TRUE(near(y, expected, test::kLayer));
  for (size_t i = 0; i < 5; ++i)
    EXPECT_TRUE(near(in.floating()[i]->grad(), exact.floating()[i]->grad(), test::kGradient)) << i;
}

std::vector<at::Tensor> outcome(AttentionInputs in, const std::optional<PixelGroupMap>& map = {}) {
  in.require_grad();
  const auto y = in.run(map);
  at::manual_seed(11);
  y.backward(at::randn_like(y));
  std::vector<at::Tensor> all{y};
  for (auto* t : in.floating()) all.push_back(t->grad());
  return all;
}

TEST(PixelAttention, SameBitsInEveryRunGroupingAndNumberOfThreads) {
  at::manual_seed(5);
  auto counts = at::randint(0, 40, {3000}, at::kLong);
  counts[17] = 30000;
  AttentionCase c{32, 2, 16, 16, {}};
  c.counts.assign(counts.const_data_ptr<int64_t>(), counts.const_data_ptr<int64_t>() + 3000);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const AttentionInputs in(c, type);
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    const auto one = outcome(in);
    at::set_num_threads(2);
    const auto two = outcome(in), grouped = outcome(in, build_pixel_group_map(in.cu));
    at::set_num_threads(3);
    const auto three = outcome(in);
    at::set_num_threads(threads);
    for (size_t i = 0; i < one.size(); ++i) {
      EXPECT_TRUE(identical(two[i], one[i])) << i;
      EXPECT_TRUE(identical(three[i], one[i])) << i;
      EXPECT_TRUE(identical(grouped[i], one[i])) << i;
    }
  }
}

TEST(PixelAttention, EmptyPixelsAreExactlyZero) {
  AttentionInputs in({16, 1, 4, 4, {0, 2, 0}}, at::kFloat);
  in.require_grad();
  const auto y = in.run();
  EXPECT_TRUE(identical(y[0], at::zeros({16, 4})));
  EXPECT_TRUE(identical(y[2], at::zeros({16, 4})));
  y.sum().backward();
  EXPECT_EQ(in.q.grad()[0].abs().max().item<float>(), 0);
}

TEST(PixelAttention, WithoutTokensOrPixelsEveryInputStillHasAGradient) {
  for (const auto& counts : std::vector<std::vector<int64_t>>{{0, 0, 0}, {}}) {
    AttentionInputs in({32, 2, 4, 6, counts}, at::kFloat);
    in.require_grad();
    const auto y = in.run();
    EXPECT_TRUE(identical(y, at::zeros_like(in.q)));
    y.sum().backward();
    for (auto* t : in.floating()) {
      ASSERT_TRUE(t->grad().defined());
      EXPECT_TRUE(identical(t->grad(), at::zeros_like(*t)));
    }
  }
}

TEST(PixelAttention, StridedInputsAndLargeScores) {
  AttentionInputs in(kCases[0], at::kFloat);
  in.q = in.q * 200;  // weights of almost 0 and 1
  const auto expected = in.run();
  EXPECT_TRUE(expected.isfinite().all().item<bool>());
  auto strided = in;
  for (auto* t : strided.floating()) *t = at::stack({*t, *t + 1}, -1).select(-1, 0);
  strided.cu = at::stack({in.cu, in.cu}, 1).select(1, 0);
  EXPECT_FALSE(strided.q.is_contiguous());
  EXPECT_TRUE(identical(strided.run(), expected));
  EXPECT_TRUE(near(expected,
                   pixel_attention_reference(in.q, in.tokens, in.w_k, in.w_v, in.cu, 2,
                                             default_scale(in), in.b_v),
                   1e-4));
}

TEST(PixelAttention, KeyBiasCancelsAndHasZeroGradient) {
  AttentionInputs in(kCases[0], at::kDouble);
  auto b_k = in.b_k.clone().requires_grad_();
  const auto y = pixel_attention(in.q, in.tokens, in.w_k, in.w_v, in.cu, 99, 2, {}, b_k, in.b_v,
                                 /*force_fp32=*/true);
  EXPECT_TRUE(identical(y, in.run()));
  y.sum().backward();
  EXPECT_TRUE(identical(b_k.grad(), at::zeros_like(b_k)));
}

TEST(PixelAttention, MixedTypesAndAutocast) {
  AttentionInputs in(kCases[0], at::kFloat);
  const auto expected = in.run();
  auto mixed = in;
  mixed.q = in.q.to(at::kBFloat16);
  mixed.require_grad();
  const auto y = mixed.run();
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(near(y, expected, test::kBf16));
  y.sum().backward();
  EXPECT_EQ(mixed.q.grad().scalar_type(), at::kBFloat16);
  EXPECT_EQ(mixed.tokens.grad().scalar_type(), at::kFloat);

  at::autocast::set_autocast_enabled(at::kCPU, true);
  const auto cast = in.run(), composed = forward_composed(raw(in, default_scale(in))).out;
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_TRUE(near(composed, expected, test::kLayer));
  EXPECT_EQ(cast.scalar_type(), at::kFloat);  // like Q
  EXPECT_TRUE(near(cast, expected, test::kBf16));
}

TEST(PixelAttention, RegisteredOperatorWithGradientsAndMetaShapes) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("halcyon::pixel_attention", "");
  const auto call = [&](const AttentionInputs& in, const std::optional<PixelGroupMap>& map) {
    torch::jit::Stack stack{in.q, in.tokens, in.w_k, in.w_v, in.cu, int64_t{70}, in.n_kv,
                            {},   {},        in.b_v, false,  {},    {}};
    if (map) {
      stack[11] = map->program_ptr;
      stack[12] = map->program_pixels;
    }
    op.callBoxed(&stack);
    return stack[0].toTensor();
  };
  AttentionInputs in(kCases[0], at::kFloat);
  in.require_grad();
  const auto y = call(in, build_pixel_group_map(in.cu));
  EXPECT_TRUE(identical(y, in.run()));
  y.sum().backward();
  EXPECT_TRUE(in.tokens.grad().defined());
  auto meta = AttentionInputs(kCases[0], at::kFloat);
  for (auto* t : meta.floating()) *t = t->to(at::kMeta);
  meta.cu = meta.cu.to(at::kMeta);
  EXPECT_EQ(call(meta, {}).sizes(), in.q.sizes());
}

TEST(PixelAttention, RefusesASecondDerivative) {
  AttentionInputs in(kCases[4], at::kFloat);
  in.require_grad();
  const auto y = in.run();
  expect_error("create_graph",
               [&] { torch::autograd::grad({y.sum()}, {in.q}, {}, true, /*create_graph=*/true); });
}

TEST(PixelAttention, RefusesWhatDoesNotFit) {
  const AttentionInputs good({16, 2, 4, 6, {2, 1}}, at::kFloat);
  const auto expect = [&](const std::string& part, auto&& change) {
    auto in = good;
    change(in);
    expect_error(part, [&] { in.run(); });
  };
  expect("Q of rank 3", [](auto& in) { in.q = in.q[0]; });
  expect("a floating type", [](auto& in) { in.tokens = in.tokens.to(at::kInt); });
  expect("tokens of rank 2", [](auto& in) { in.tokens = in.tokens[0]; });
  expect("divide the 16 query heads, got 3", [](auto& in) { in.n_kv = 3; });
  expect("divide the 16 query heads, got 0", [](auto& in) { in.n_kv = 0; });
  expect("W_k of shape (8, 6), got (8, 5)", [](auto& in) { in.w_k = in.w_k.slice(1, 0, 5); });
  expect("W_v of shape (8, 6)", [](auto& in) { in.w_v = in.w_v.t(); });
  expect("B_v of length 8, got 7", [](auto& in) { in.b_v = in.b_v.slice(0, 0, 7); });
  expect("cu_seqlens_k of length 3, got 2", [](auto& in) { in.cu = in.cu.slice(0, 0, 2); });
  expect("int32 or int64", [](auto& in) { in.cu = in.cu.to(at::kFloat); });
  expect("number of tokens 3, got 4", [](auto& in) { in.cu = at::tensor({0, 2, 4}); });
  expect("begin with 0", [](auto& in) { in.cu = at::tensor({1, 2, 3}); });
  expect("ascend", [](auto& in) { in.cu = at::tensor({0, 7, 3}); });
  expect_error("program_ptr", [&] { good.run(PixelGroupMap{at::zeros({2}), good.cu}); });
}

}  // namespace
}  // namespace halcyon
