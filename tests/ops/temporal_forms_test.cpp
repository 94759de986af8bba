// SPDX-License-Identifier: Apache-2.0
// Every form of the kernels, forced, against the composition of ATen operators in double.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "halcyon/ops/temporal/backends.h"
#include "halcyon/ops/temporal/temporal.h"
#include "tests/ops/ops_test.h"
#include "tests/ops/temporal_inputs.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using temporal_detail::best_form;
using temporal_detail::Form;
using test::identical;
using test::levels;
using test::near;

struct Problem {
  test::TemporalShape shape;
  test::TemporalOptions options;
};

// Lengths about the blocks of 32 frames, widths that meet vectors and that do not, windows of less
// than a block, of some blocks and of more than there are frames.
const std::vector<Problem> kProblems{
    {{1, 1, 5, 2, 64}, {true, true, {}, true}},     {{2, 2, 5, 3, 8}, {false, true, {}, true}},
    {{1, 3, 9, 5, 24}, {true, true, 2, true}},      {{1, 5, 3, 2, 1}, {false, false, {}, false}},
    {{1, 7, 4, 9, 7}, {true, false, {}, false}},    {{1, 16, 3, 16, 24}, {false, true, 5, true}},
    {{1, 17, 2, 2, 96}, {true, true, 1, true}},     {{1, 32, 1, 3, 128}, {false, true, {}, true}},
    {{2, 33, 2, 2, 64}, {true, true, {}, true}},    {{1, 33, 1, 1, 10}, {false, false, {}, true}},
    {{1, 64, 2, 1, 8}, {true, true, 31, false}},    {{1, 65, 2, 2, 9}, {false, true, 40, false}},
    {{1, 100, 1, 2, 64}, {true, true, 64, true}},   {{1, 100, 1, 2, 24}, {true, true, 33, true}},
    {{1, 131, 2, 1, 16}, {true, true, 97, true}},   {{1, 257, 1, 1, 24}, {true, true, 96, true}},
    {{1, 257, 1, 2, 5}, {true, false, {}, false}},  {{1, 257, 1, 1, 64}, {false, true, 257, true}},
    {{1, 257, 1, 1, 6}, {true, true, 256, false}},  {{1, 300, 2, 1, 96}, {true, true, 1000, true}},
    {{1, 1024, 1, 1, 16}, {true, true, 333, true}}, {{1, 1024, 1, 1, 24}, {false, true, {}, true}},
    {{1, 1024, 1, 1, 32}, {true, true, {}, true}},
};

// Allowed errors over the largest value, of the result and of gradients.
struct Bound {
  at::ScalarType type;
  double out, gradient;
};
constexpr Bound kBounds[]{{at::kFloat, 1e-6, 2e-6},
                          {at::kDouble, 5e-15, 5e-15},
                          {at::kBFloat16, 5e-3, 5e-3},
                          {at::kHalf, 1e-3, 1e-3}};

std::vector<Form> forms(const Problem& p) {
  std::vector<Form> all{Form::blocks};
  if (p.shape.frames <= 65) all.push_back(Form::pairs);
  if (p.options.linear) all.push_back(Form::states);
  return all;
}

// The largest error over the largest value, for the table below.
double error(const at::Tensor& actual, const at::Tensor& expected) {
  return (actual.to(at::kDouble) - expected).abs().max().item<double>() /
         std::max(expected.abs().max().item<double>(), 1e-300);
}

TEST(TemporalForms, AgreeWithTheComposition) {
  double worst[std::size(kBounds)][2] = {};
  for (size_t n = 0; n < kProblems.size(); ++n) {
    const auto& p = kProblems[n];
    for (size_t b = 0; b < std::size(kBounds); ++b) {
      const auto [type, out_bound, gradient_bound] = kBounds[b];
      const auto in = test::temporal_inputs(p.shape, p.options, type);
      auto exact = in;
      for (auto* t : {&exact.q, &exact.k, &exact.v})
        *t = t->to(at::kDouble).clone().requires_grad_();
      const auto expected = temporal_detail::composed(exact);
      const auto grad_out = at::randn_like(expected).to(type);
      expected.backward(grad_out.to(at::kDouble));
      for (const auto form : forms(p)) {
        for (const auto level : levels()) {
          SCOPED_TRACE(fmt::format("problem {} type {} form {} level {}", n, c10::toString(type),
                                   int(form), int(level)));
          const auto out = temporal_detail::forward_cpu(in, level, form);
          EXPECT_TRUE(near(out, expected, out_bound));
          worst[b][0] = std::max(worst[b][0], error(out, expected));
          const auto grad = temporal_detail::backward_cpu(in, grad_out, level, form);
          for (const auto& [actual, leaf] :
               {std::pair(grad.q, exact.q), {grad.k, exact.k}, {grad.v, exact.v}}) {
            EXPECT_TRUE(near(actual, leaf.grad(), gradient_bound));
            worst[b][1] = std::max(worst[b][1], error(actual, leaf.grad()));
          }
        }
      }
    }
  }
  for (size_t b = 0; b < std::size(kBounds); ++b)
    fmt::print("{}: worst error of the result {:.2g}, of gradients {:.2g}\n",
               c10::toString(kBounds[b].type), worst[b][0], worst[b][1]);
}

TEST(TemporalForms, OtherStridesAreTheSame) {
  for (const auto& p : kProblems) {
    if (p.shape.frames > 131) continue;
    const auto in = test::temporal_inputs(p.shape, p.options, at::kFloat);
    auto odd = in;
    odd.q = in.q.transpose(1, 2).contiguous().transpose(1, 2);  // frames beside one another
    odd.k = in.k.transpose(3, 4).contiguous().transpose(3, 4);  // channels apart
    odd.v = at::stack({in.v, in.v}, 2).select(2, 1);
    const auto grad_out = at::randn_like(in.q).expand_as(in.q);
    for (const auto form : forms(p)) {
      EXPECT_TRUE(identical(temporal_detail::forward_cpu(odd, cpu_level(), form),
                            temporal_detail::forward_cpu(in, cpu_level(), form)));
      EXPECT_TRUE(identical(temporal_detail::backward_cpu(odd, grad_out, cpu_level(), form).joint,
                            temporal_detail::backward_cpu(in, grad_out, cpu_level(), form).joint));
    }
  }
}

TEST(TemporalForms, SameBitsForAnyNumberOfThreads) {
  for (const Problem& p : {Problem{{2, 6, 300, 4, 24}, {false, true, {}, true}},
                           {{1, 100, 7, 3, 16}, {true, true, 40, true}},
                           {{1, 100, 7, 3, 16}, {false, true, 70, true}}}) {
    const auto in = test::temporal_inputs(p.shape, p.options, at::kFloat);
    const auto grad_out = at::randn_like(in.q);
    for (const auto form : forms(p)) {
      test::expect_same_bits("form", [&] {
        return std::vector{temporal_detail::forward_cpu(in, cpu_level(), form),
                           temporal_detail::backward_cpu(in, grad_out, cpu_level(), form).joint};
      });
    }
  }
}

// A large past must leave nothing behind in a window that it has left.
TEST(TemporalForms, WhatLeavesTheWindowLeavesNothing) {
  const Problem p{{1, 400, 1, 1, 16}, {true, true, 70, false}};
  auto in = test::temporal_inputs(p.shape, p.options, at::kFloat);
  for (auto* t : {&in.k, &in.v}) {
    *t = t->clone();
    t->narrow(1, 0, 100).mul_(1e6);
  }
  const auto cut = [](const at::Tensor& t) { return t.narrow(1, 170, 230); };
  const auto out = cut(temporal_detail::forward_cpu(in, cpu_level(), Form::states));
  EXPECT_TRUE(near(out, cut(temporal_detail::composed(in)), 3e-6));
  const auto grad =
      temporal_detail::backward_cpu(in, at::ones_like(in.q), cpu_level(), Form::states);
  const auto direct =
      temporal_detail::backward_cpu(in, at::ones_like(in.q), cpu_level(), Form::blocks);
  EXPECT_TRUE(near(cut(grad.q), cut(direct.q), 3e-6));
  EXPECT_TRUE(near(cut(grad.k), cut(direct.k), 3e-6));
}

// Scores far apart, whose exponentials without their maximum would overflow.
TEST(TemporalForms, LargeScoresStayFinite) {
  const Problem p{{1, 70, 2, 1, 8}, {false, true, {}, false}};
  auto in = test::temporal_inputs(p.shape, p.options, at::kFloat);
  in.q = in.q * 300;
  for (const auto form : forms(p)) {
    const auto out = temporal_detail::forward_cpu(in, cpu_level(), form);
    EXPECT_TRUE(near(out, temporal_detail::composed(in), 1e-4)) << int(form);
  }
}

// A T x T matrix of these frames in float would take 64 MiB a head.
TEST(TemporalForms, LongSequencesTakeLittleMemory) {
  const Problem p{{1, 4096, 1, 2, 16}, {false, true, {}, false}};
  const auto in = test::temporal_inputs(p.shape, p.options, at::kFloat);
  EXPECT_TRUE(near(temporal_detail::forward_cpu(in), temporal_detail::composed(in), 3e-6));
  EXPECT_TRUE(temporal_detail::backward_cpu(in, in.v).joint.isfinite().all().item<bool>());
}

TEST(TemporalForms, TheBestFormFollowsTheCost) {
  EXPECT_EQ(best_form(4, 64, true, true, 4), Form::pairs);
  EXPECT_EQ(best_form(4, 64, false, true, 4), Form::pairs);
  EXPECT_EQ(best_form(33, 64, false, true, 33), Form::blocks);
  EXPECT_EQ(best_form(1024, 64, false, true, 1024), Form::blocks);
  EXPECT_EQ(best_form(1024, 64, true, true, 1024), Form::states);
  EXPECT_EQ(best_form(1024, 64, true, false, 1024), Form::states);
  EXPECT_EQ(best_form(1024, 64, true, true, 32), Form::blocks);
  EXPECT_EQ(best_form(1024, 64, true, true, 512), Form::states);
  EXPECT_EQ(best_form(96, 512, true, true, 96), Form::blocks);
}

}  // namespace
}  // namespace halcyon
