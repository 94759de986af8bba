// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/attention/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "halcyon/ops/attention/backends.h"
#include "halcyon/ops/rms_norm.h"
#include "tests/ops/ops_test.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"

namespace halcyon {
namespace {

using attention_detail::Gradients;
using attention_detail::Inputs;
using attention_detail::Output;
using test::expect_error;
using test::identical;
using test::levels;
using test::near;

struct Problem {
  int64_t batch, queries, keys, heads, groups, width;
  bool causal, norm;
  double scale;
};

// Tokens about the blocks of 192 queries and 256 keys, widths that meet vectors and that do not,
// shared key heads, and few heads of many keys, whose backward is done in parts.
const std::vector<Problem> kProblems{
    {1, 1, 1, 1, 1, 1, false, false, 1},       {2, 5, 5, 3, 3, 8, true, true, 0.3},
    {1, 7, 50, 4, 2, 24, false, true, 0.2},    {3, 48, 48, 2, 2, 64, false, true, 0.125},
    {1, 191, 255, 1, 1, 33, false, false, .2}, {1, 192, 256, 6, 2, 16, false, true, -0.25},
    {1, 193, 257, 2, 1, 31, false, true, 0.2}, {1, 385, 385, 2, 2, 96, true, true, 0.1},
    {1, 600, 600, 1, 1, 65, true, false, 0.1}, {1, 300, 1100, 2, 1, 20, false, true, 0.2},
    {1, 40, 2500, 1, 1, 48, false, false, 0},  {1, 1300, 1300, 3, 1, 7, true, true, 0.4},
};

// Allowed errors over the largest value, of the result and of gradients. Pairs of bfloat16 round
// the weights too.
struct Bound {
  at::ScalarType type;
  bool pairs;
  double out, gradient;
};
constexpr Bound kBounds[]{{at::kFloat, false, 2e-6, 3e-6},
                          {at::kDouble, false, 5e-15, 2e-14},
                          {at::kBFloat16, false, 5e-3, 8e-3},
                          {at::kBFloat16, true, 8e-3, 1.5e-2}};

Inputs make_inputs(const Problem& p, at::ScalarType type) {
  at::manual_seed(3);
  const auto draw = [&](at::IntArrayRef shape) { return at::randn(shape, at::kDouble).to(type); };
  Inputs in{draw({p.batch, p.queries, p.heads, p.width}),
            draw({p.batch, p.keys, p.groups, p.width}),
            draw({p.batch, p.keys, p.groups, p.width}),
            p.scale,
            p.causal,
            {},
            {},
            1e-6};
  if (p.norm) {
    in.query_weight = (at::rand({p.width}, at::kDouble) + 0.5).to(in.accumulate());
    in.key_weight = (at::rand({p.width}, at::kDouble) + 0.5).to(in.accumulate());
  }
  return in;
}

Inputs in_double(const Inputs& in) {
  auto wide = in;
  for (auto* t : {&wide.query, &wide.key, &wide.value, &wide.query_weight, &wide.key_weight})
    if (t->defined()) *t = t->detach().to(at::kDouble).clone().requires_grad_();
  return wide;
}

Gradients backward(const Inputs& in, const Output& output, const at::Tensor& grad_out,
                   const at::Tensor& grad_lse, CpuLevel level = cpu_level(),
                   bool pairs = attention_detail::has_pairs()) {
  const auto like = [](const at::Tensor& t) {
    return t.defined() ? at::empty(t.sizes(), t.options()) : t;
  };
  const Gradients into{like(in.query), like(in.key), like(in.value), like(in.query_weight),
                       like(in.key_weight)};
  attention_detail::backward_cpu(in, output, grad_out, grad_lse, into, level, pairs);
  return into;
}

// The error over the largest value; the values themselves where all should be zero.
double error(const at::Tensor& actual, const at::Tensor& expected) {
  const double most = expected.abs().max().item<double>();
  return (actual.to(at::kDouble) - expected).abs().max().item<double>() /
         (most > 1e-12 ? most : 1.0);
}

void expect_within(const Bound& bound, const Inputs& in, double (&worst)[2]) {
  const auto exact = in_double(in);
  const auto expected = attention_detail::composed(exact);
  const auto grad_out = at::randn_like(expected.out).to(bound.type),
             grad_lse = at::randn_like(expected.lse).to(in.accumulate());
  ((expected.out * grad_out.to(at::kDouble)).sum() + (expected.lse * grad_lse).sum()).backward();
  for (const auto level : levels()) {
    if (bound.pairs && level != CpuLevel::avx512) continue;
    SCOPED_TRACE(fmt::format("level {}", static_cast<int>(level)));
    const auto output = attention_detail::forward_cpu(in, level, bound.pairs);
    const auto grad = backward(in, output, grad_out, grad_lse, level, bound.pairs);
    EXPECT_EQ(output.out.scalar_type(), bound.type);
    const double of_out =
        std::max(error(output.out, expected.out), error(output.lse, expected.lse));
    EXPECT_LE(of_out, bound.out);
    worst[0] = std::max(worst[0], of_out);
    for (const auto& [name, ours, leaf] : {std::tuple("query", grad.query, exact.query),
                                           {"key", grad.key, exact.key},
                                           {"value", grad.value, exact.value},
                                           {"query_weight", grad.query_weight, exact.query_weight},
                                           {"key_weight", grad.key_weight, exact.key_weight}}) {
      if (!leaf.defined()) continue;
      const double of_gradient = error(ours, leaf.grad());
      EXPECT_LE(of_gradient, bound.gradient) << name;
      worst[1] = std::max(worst[1], of_gradient);
    }
  }
}

TEST(Attention, EveryKernelWithinItsBound) {
  for (const auto& bound : kBounds) {
    if (bound.pairs && !attention_detail::has_pairs()) {
      fmt::print("pairs of bfloat16: not on this processor\n");
      continue;
    }
    double worst[2] = {};
    for (size_t n = 0; n < kProblems.size(); ++n) {
      SCOPED_TRACE(fmt::format("problem {} type {}", n, c10::toString(bound.type)));
      expect_within(bound, make_inputs(kProblems[n], bound.type), worst);
    }
    fmt::print("{}{}: worst error of the result {:.2g}, of gradients {:.2g}\n",
               c10::toString(bound.type), bound.pairs ? " in pairs" : "", worst[0], worst[1]);
  }
}

TEST(Attention, StridesAreFollowed) {
  const Problem p{2, 70, 70, 4, 4, 24, false, true, 0.2};
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const auto in = make_inputs(p, type);
    auto strided = in;
    strided.query = in.query.transpose(1, 2).contiguous().transpose(1, 2);
    strided.key = in.key.transpose(2, 3).contiguous().transpose(2, 3);  // channels apart
    strided.value = at::stack({in.value, in.value}, 2).select(2, 1);
    const auto output = attention_detail::forward_cpu(in);
    EXPECT_TRUE(identical(attention_detail::forward_cpu(strided).out, output.out));
    const auto grad = at::randn_like(output.out);
    const auto ours =
                   backward(strided, output, grad.transpose(2, 3).contiguous().transpose(2, 3), {}),
               expected = backward(in, output, grad, {});
    EXPECT_TRUE(identical(ours.query, expected.query));
    EXPECT_TRUE(identical(ours.key, expected.key));
    EXPECT_TRUE(identical(ours.value, expected.value));
  }
}

TEST(Attention, SameBitsForAnyNumberOfThreads) {
  for (const auto& p : {Problem{1, 500, 2500, 2, 1, 24, false, true, 0.2},
                        Problem{5, 200, 200, 3, 3, 16, true, true, 0.2}}) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const auto in = make_inputs(p, type);
      const auto grad_out = at::randn_like(in.query);
      test::expect_same_bits(c10::toString(type), [&] {
        const auto output = attention_detail::forward_cpu(in);
        const auto grad = backward(in, output, grad_out, {});
        return std::vector{output.out, output.lse,        grad.query,     grad.key,
                           grad.value, grad.query_weight, grad.key_weight};
      });
    }
  }
}

// A token's result must not depend on scores that overflow, vanish or differ by much.
TEST(Attention, ScoresOfAnySize) {
  auto in = make_inputs({1, 3, 700, 1, 1, 16, false, false, 1}, at::kFloat);
  in.query.select(1, 0).mul_(1e3);
  in.query.select(1, 1).mul_(1e-30);
  const auto expected = attention_detail::composed(in_double(in));
  const auto output = attention_detail::forward_cpu(in);
  EXPECT_TRUE(near(output.out, expected.out, 1e-5));
  EXPECT_TRUE(near(output.lse, expected.lse, 1e-6));
  in.key.select(1, 600).fill_(NAN);
  EXPECT_TRUE(attention_detail::forward_cpu(in).out.isnan().all().item<bool>());
}

TEST(SelfAttentionOperator, GradientsInDouble) {
  at::manual_seed(1);
  const auto leaf = [](at::IntArrayRef shape) {
    return at::randn(shape, at::kDouble).requires_grad_();
  };
  const auto qkv = leaf({2, 9, 3, 2, 6}), wq = leaf({6}), wk = leaf({6});
  for (const bool causal : {false, true}) {
    EXPECT_TRUE(test::gradcheck(
        [&] {
          return std::vector{self_attention(qkv, QkNorm{wq, wk, 1e-6}, causal)};
        },
        {qkv, wq, wk}));
    EXPECT_TRUE(
        test::gradcheck([&] { return std::vector{self_attention(qkv, {}, causal)}; }, {qkv}));
    // ones for weights that there are none of
    EXPECT_TRUE(near(self_attention(qkv, QkNorm{{}, {}, 1e-6}, causal),
                     self_attention(qkv, QkNorm{at::ones({6}), at::ones({6}), 1e-6}, causal),
                     1e-15));
  }
}

TEST(SelfAttentionOperator, HalfEmptyAndAutocast) {
  at::manual_seed(2);
  const auto qkv = at::randn({2, 30, 3, 2, 16});
  const QkNorm norm{at::rand({16}) + 0.5, at::rand({16}) + 0.5, 1e-6};
  const auto expected = self_attention(qkv, norm);
  const QkNorm half{norm.query_weight.to(at::kHalf), norm.key_weight.to(at::kHalf), 1e-6};
  EXPECT_TRUE(near(self_attention(qkv.to(at::kHalf), half), expected, 5e-3));
  EXPECT_EQ(self_attention(at::empty({2, 0, 3, 2, 16}), norm).sizes(),
            (at::IntArrayRef{2, 0, 2, 16}));

  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const auto lower = self_attention(qkv, norm);
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(lower.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(near(lower, expected, test::kBf16));
}

TEST(SelfAttentionOperator, WrongArguments) {
  const auto qkv = at::zeros({1, 4, 3, 2, 8});
  expect_error("expected qkv of shape (B, N, 3, H, d)", [] {
    self_attention(at::zeros({1, 4, 2, 2, 8}));
  });
  expect_error("qkv", [] { self_attention(at::zeros({4, 3, 2, 8})); });
  expect_error("expected query_weight of 8 elements, got", [&] {
    self_attention(qkv, QkNorm{at::ones({7}), at::ones({8}), 1e-6});
  });
  expect_error("expected an eps of 0 or more", [&] { self_attention(qkv, QkNorm{{}, {}, -1}); });
}

}  // namespace
}  // namespace halcyon
