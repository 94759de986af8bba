// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/temporal/temporal.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <tuple>

#include "halcyon/ops/rope.h"
#include "halcyon/ops/temporal/backends.h"
#include "tests/ops/ops_test.h"
#include "tests/ops/temporal_inputs.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/gradcheck.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using temporal_detail::Inputs;
using test::expect_error;
using test::identical;
using test::levels;
using test::near;
using test::temporal_inputs;
using test::TemporalOptions;
using test::TemporalShape;

const std::vector<TemporalShape> kShapes{{1, 4, 7, 2, 64}, {2, 5, 3, 4, 8},  {1, 1, 2, 1, 2},
                                         {2, 8, 2, 1, 96}, {1, 3, 4, 3, 18}, {1, 19, 2, 1, 6}};
const std::vector<TemporalOptions> kOptions{{true, true, {}, true},    {true, true, 2, true},
                                            {false, true, {}, true},   {false, true, 3, false},
                                            {true, false, {}, true},   {false, false, {}, false},
                                            {false, true, 100, false}, {true, true, 1, false}};

// The definition, one frame after the other.
at::Tensor by_definition(const Inputs& in) {
  auto q = in.q.to(at::kDouble), k = in.k.to(at::kDouble);
  const auto v = in.v.to(at::kDouble);
  if (in.cos) {
    q = apply_rope(q, *in.cos, *in.sin, 1);
    k = apply_rope(k, *in.cos, *in.sin, 1);
  }
  const int64_t frames = q.size(1);
  std::vector<at::Tensor> out;
  for (int64_t i = 0; i < frames; ++i) {
    const int64_t last = in.causal ? i : frames - 1;
    const int64_t first = in.window ? std::max<int64_t>(0, i - *in.window + 1) : 0;
    std::vector<at::Tensor> a;
    for (int64_t j = first; j <= last; ++j)
      a.push_back((q.select(1, i) * k.select(1, j)).sum(-1, true) / std::sqrt(double(q.size(4))));
    auto weights = at::stack(a);
    if (!in.linear) weights = weights.softmax(0);
    auto sum = at::zeros_like(v.select(1, 0));
    for (int64_t j = first; j <= last; ++j) sum = sum + weights[j - first] * v.select(1, j);
    out.push_back(sum);
  }
  return at::stack(out, 1);
}

TEST(TemporalAttention, EveryInstructionSetAgreesWithTheDefinition) {
  for (size_t s = 0; s < kShapes.size(); ++s) {
    for (size_t o = 0; o < kOptions.size(); ++o) {
      for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
        SCOPED_TRACE(fmt::format("shape {} options {} type {}", s, o, c10::toString(type)));
        auto in = temporal_inputs(kShapes[s], kOptions[o], type);
        auto exact = in;
        for (auto* t : {&exact.q, &exact.k, &exact.v})
          *t = t->to(at::kDouble).clone().requires_grad_();
        const auto expected = by_definition(exact);
        const auto grad_out = at::randn_like(expected).to(type);
        expected.backward(grad_out.to(at::kDouble));
        const double bound = type == at::kFloat ? 2e-6 : type == at::kDouble ? 1e-14 : 5e-3;
        EXPECT_TRUE(near(temporal_detail::composed(in), expected, bound));
        for (const auto level : levels()) {
          const auto out = temporal_detail::forward_cpu(in, level);
          EXPECT_EQ(out.scalar_type(), type);
          EXPECT_TRUE(near(out, expected, bound)) << int(level);
          const auto grad = temporal_detail::backward_cpu(in, grad_out, level);
          EXPECT_TRUE(near(grad.q, exact.q.grad(), bound)) << int(level);
          EXPECT_TRUE(near(grad.k, exact.k.grad(), bound)) << int(level);
          EXPECT_TRUE(near(grad.v, exact.v.grad(), bound)) << int(level);
        }
      }
    }
  }
}

TEST(TemporalAttention, SideBySideIsTheSame) {
  for (const auto& options : kOptions) {
    const auto in = temporal_inputs(kShapes[1], options, at::kFloat);
    const auto apart = [](const at::Tensor& t) { return t.detach().clone().requires_grad_(); };
    const auto q = apart(in.q), k = apart(in.k), v = apart(in.v);
    const auto qkv = at::stack({q, k, v}, 3).detach().requires_grad_();
    const auto separate =
        temporal_attention(q, k, v, options.linear, options.causal, options.window, in.cos, in.sin);
    const auto joint =
        temporal_attention(qkv, options.linear, options.causal, options.window, in.cos, in.sin);
    EXPECT_TRUE(identical(joint, separate));
    const auto g = at::randn_like(joint);
    separate.backward(g);
    joint.backward(g);
    EXPECT_TRUE(identical(qkv.grad(), at::stack({q.grad(), k.grad(), v.grad()}, 3)));
  }
  expect_error("qkv (B, T, X, 3, H, d)", [] {
    temporal_attention(at::zeros({1, 2, 3, 2, 4, 8}), true, true);
  });
}

TEST(TemporalAttention, HalfLikeFloat) {
  const auto in = temporal_inputs(kShapes[0], kOptions[0], at::kHalf);
  const auto y = temporal_detail::forward_cpu(in);
  EXPECT_EQ(y.scalar_type(), at::kHalf);
  EXPECT_TRUE(near(y, by_definition(in), 1e-3));
}

TEST(TemporalAttention, GradcheckInDouble) {
  for (const auto& options : kOptions) {
    auto in = temporal_inputs({2, 4, 2, 2, 6}, options, at::kDouble);
    for (auto* t : {&in.q, &in.k, &in.v}) *t = t->clone().requires_grad_();
    EXPECT_TRUE(test::gradcheck(
        [&] {
          return std::vector{temporal_attention(in.q, in.k, in.v, in.linear, in.causal, in.window,
                                                in.cos, in.sin)};
        },
        {in.q, in.k, in.v}));
  }
}

// The module's golden, with the projections by ATen.
TEST(TemporalAttention, Goldens) {
  HALCYON_NEEDS_SHARED();
  for (const auto* name :
       {"linear_causal_rope", "linear_causal_window2_rope", "softmax_causal_rope"}) {
    SCOPED_TRACE(name);
    const auto g = test::golden(std::string("healda/temporal_") + name);
    const auto heads = g.config.at("num_heads").get<int64_t>();
    std::optional<int64_t> window;
    if (g.config.contains("causal_window") && !g.config.at("causal_window").is_null())
      window = g.config.at("causal_window").get<int64_t>();
    const auto x = g.at("in.x").clone().requires_grad_();
    auto weight = g.at("param.qkv.weight").clone().requires_grad_();
    const auto qkv = at::linear(x, weight, g.at("param.qkv.bias")).unflatten(-1, {3, heads, -1});
    const auto out = temporal_attention(qkv.select(3, 0), qkv.select(3, 1), qkv.select(3, 2),
                                        g.config.at("linear_attention").get<bool>(),
                                        g.config.at("is_causal").get<bool>(), window,
                                        g.at("in.rope_cos"), g.at("in.rope_sin"));
    const auto y = at::linear(out.flatten(-2), g.at("param.proj.weight"), g.at("param.proj.bias"));
    EXPECT_TRUE(near(y, g.at("out.y"), test::kLayer));
    y.backward(g.at("gradout.y"));
    EXPECT_TRUE(near(x.grad(), g.at("grad.in.x"), test::kGradient));
    EXPECT_TRUE(near(weight.grad(), g.at("grad.param.qkv.weight"), test::kGradient));
  }
}

TEST(TemporalAttention, SameBitsForAnyNumberOfThreads) {
  const auto in = temporal_inputs({2, 6, 500, 4, 24}, kOptions[2], at::kFloat);
  const auto grad_out = temporal_detail::forward_cpu(in);
  test::expect_same_bits("temporal attention", [&] {
    const auto grad = temporal_detail::backward_cpu(in, grad_out);
    return std::vector{temporal_detail::forward_cpu(in), grad.q, grad.k, grad.v};
  });
}

TEST(TemporalAttention, EmptyAndStrided) {
  const auto none = at::zeros({2, 0, 3, 4, 8}).requires_grad_();
  const auto y = temporal_attention(none, none, none, true, true);
  EXPECT_EQ(y.sizes(), none.sizes());
  y.sum().backward();
  EXPECT_EQ(none.grad().sizes(), none.sizes());
  const auto in = temporal_inputs(kShapes[1], kOptions[0], at::kFloat);
  const auto odd = [](const at::Tensor& t) {
    return t.transpose(3, 4).contiguous().transpose(3, 4);
  };
  EXPECT_TRUE(
      identical(temporal_attention(odd(in.q), odd(in.k), odd(in.v), true, true, {}, in.cos, in.sin),
                temporal_attention(in.q, in.k, in.v, true, true, {}, in.cos, in.sin)));
}

TEST(TemporalAttention, RefusesASecondDerivative) {
  const auto x = at::randn({1, 2, 3, 2, 4}).requires_grad_();
  const auto y = temporal_attention(x, x, x, true, true);
  expect_error("create_graph",
               [&] { torch::autograd::grad({y.sum()}, {x}, {}, true, /*create_graph=*/true); });
}

TEST(TemporalAttention, RefusesWhatDoesNotFit) {
  const auto x = at::zeros({1, 2, 3, 4, 5}), table = at::zeros({2, 5});
  expect_error("q of rank 5", [&] { temporal_attention(x[0], x[0], x[0], true, true); });
  expect_error("like q", [&] { temporal_attention(x, x.slice(1, 0, 1), x, true, true); });
  expect_error("like q", [&] { temporal_attention(x, x, x.to(at::kHalf), true, true); });
  expect_error("only with causal", [&] { temporal_attention(x, x, x, true, false, 2); });
  expect_error("window >= 1", [&] { temporal_attention(x, x, x, true, true, 0); });
  expect_error("together", [&] { temporal_attention(x, x, x, true, true, {}, table); });
  expect_error("even", [&] { temporal_attention(x, x, x, true, true, {}, table, table); });
}

TEST(MaskCausal, Goldens) {
  HALCYON_NEEDS_SHARED();
  const auto g = test::golden("healda/mask_causal");
  for (const auto& [window, name] : std::vector<std::pair<std::optional<int64_t>, std::string>>{
           {{}, "None"}, {1, "1"}, {2, "2"}, {4, "4"}, {9, "9"}}) {
    EXPECT_TRUE(identical(mask_causal(g.at("in.attn"), true, window), g.at("out.linear_w" + name)));
    EXPECT_TRUE(
        identical(mask_causal(g.at("in.attn"), false, window), g.at("out.softmax_w" + name)));
  }
}

TEST(MaskCausal, LiteralRectangleGradientAndErrors) {
  const auto attn = at::ones({1, 2, 3, 1, 1}, at::kDouble).requires_grad_();
  const auto masked = mask_causal(attn);
  EXPECT_TRUE(identical(masked.flatten(), at::tensor({1.0, 0.0, 0.0, 1.0, 1.0, 0.0}, at::kDouble)));
  masked.sum().backward();
  EXPECT_TRUE(identical(attn.grad(), masked.detach()));
  expect_error("attn of rank 5", [&] { mask_causal(attn[0]); });
  expect_error("window >= 1", [&] { mask_causal(attn, true, 0); });
}

TEST(Rope, Goldens) {
  HALCYON_NEEDS_SHARED();
  const auto g = test::golden("healda/rope");
  for (const auto& [dim, theta] :
       std::vector<std::pair<int64_t, int64_t>>{{8, 100}, {16, 100}, {96, 100}, {8, 10000}}) {
    const auto suffix = fmt::format("_hd{}_th{}", dim, theta);
    const auto [cos, sin] = rope_tables(dim, 12, static_cast<double>(theta));
    EXPECT_TRUE(near(cos, g.at("out.cos" + suffix), 1e-6)) << suffix;
    EXPECT_TRUE(near(sin, g.at("out.sin" + suffix), 1e-6)) << suffix;
  }
  const auto [cos, sin] = rope_tables(8, 12);
  EXPECT_TRUE(near(apply_rope(g.at("in.x"), cos, sin), g.at("out.rotated"), 1e-6));
  const auto bf16 = apply_rope(g.at("in.x").to(at::kBFloat16), cos, sin);
  EXPECT_EQ(bf16.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(near(bf16, g.at("out.rotated_bf16"), 4e-3));
}

TEST(Rope, QuarterTurnAndTimeAxis) {
  const auto cos = at::zeros({1, 2}), sin = at::ones({1, 2});
  EXPECT_TRUE(identical(apply_rope(at::tensor({3.f, 4.f}).view({1, 2}), cos, sin),
                        at::tensor({-4.f, 3.f}).view({1, 2})));
  const auto [c, s] = rope_tables(6, 4);
  const auto x = at::randn({2, 4, 5, 3, 6});
  EXPECT_TRUE(identical(apply_rope(x, c, s, 1),
                        apply_rope(x.permute({0, 2, 3, 1, 4}), c, s).permute({0, 3, 1, 2, 4})));
  EXPECT_EQ(apply_rope(at::zeros({0, 4, 6}), c, s).sizes(), at::IntArrayRef({0, 4, 6}));
}

TEST(Rope, GradcheckInDoubleAndErrors) {
  at::Tensor cos, sin;
  std::tie(cos, sin) = rope_tables(6, 4);
  const auto x = at::randn({3, 4, 6}, at::kDouble).requires_grad_();
  EXPECT_TRUE(test::gradcheck([&] { return std::vector{apply_rope(x, cos, sin)}; }, {x}, 1e-9));
  expect_error("even, positive head_dim, got 5", [] { rope_tables(5, 3); });
  expect_error("seq_len >= 0", [] { rope_tables(4, -1); });
  expect_error("theta > 0", [] { rope_tables(4, 3, 0); });
  expect_error("tables of shape (4, 6)", [&] { apply_rope(x, cos.slice(0, 0, 3), sin); });
  expect_error("rank 2 or more", [&] { apply_rope(x[0][0], cos, sin); });
}

}  // namespace
}  // namespace halcyon
