// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <functional>

#include "halcyon/ops/tuning/switches.h"
#include "tests/ops/attention_bounds.h"
#include "tests/ops/neighborhood_case.h"
#include "tests/ops/ops_test.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using neighborhood::backward_tiled;
using neighborhood::forward_tiled;
using neighborhood::Gradients;
using neighborhood::Inputs;
using neighborhood::Output;
using test::Bound;
using test::identical;
using test::kBounds;
using test::levels;
using test::near;
using test::random_case;

Inputs in_type(const Inputs& in, at::ScalarType type) {
  Inputs cast = in;
  cast.query = in.query.to(type);
  cast.key = in.key.to(type);
  cast.value = in.value.to(type);
  if (in.bias) cast.bias = in.bias->to(type);
  return cast;
}

struct Expected {
  Output output;
  Gradients grad;
};

Expected by_reference(const test::NeighborhoodCase& c, at::ScalarType type) {
  auto in = in_type(in_type(c.in, type), at::kDouble);  // the values that the kernel is given
  for (auto* t : {&in.query, &in.key, &in.value}) *t = t->detach().clone().requires_grad_();
  if (in.bias) in.bias = in.bias->detach().clone().requires_grad_();
  const auto out = neighborhood::reference(in);
  ((out.out * c.grad_out.to(type).to(at::kDouble)).sum() + (out.lse * c.grad_lse).sum()).backward();
  const auto grad_or_zero = [](const at::Tensor& t) {
    return t.grad().defined() ? t.grad() : at::zeros_like(t);
  };
  return {{out.out.detach(), out.lse.detach()},
          {grad_or_zero(in.query),
           grad_or_zero(in.key),
           grad_or_zero(in.value),
           in.bias ? grad_or_zero(*in.bias) : at::Tensor(),
           {},
           {}}};
}

void compare_forward(const Output& out, const Expected& expected, const Bound& bound) {
  ASSERT_EQ(out.out.scalar_type(), bound.type);
  ASSERT_TRUE(near(out.out, expected.output.out, bound.forward));
  ASSERT_TRUE(near(out.lse, expected.output.lse, bound.forward));
}

void compare_gradients(const Gradients& grad, const Expected& expected, const Bound& bound) {
  // an all but vanishing gradient is the difference of large terms
  const double scale = expected.grad.value.abs().max().item<double>();
  const auto close = [&](const at::Tensor& actual, const at::Tensor& wanted) {
    const double size = std::max(wanted.abs().max().item<double>(), 0.1 * scale);
    const double error = (actual.to(at::kDouble) - wanted).abs().max().item<double>();
    return error <= bound.backward * size
               ? testing::AssertionSuccess()
               : testing::AssertionFailure() << "error " << error << " of size " << size;
  };
  ASSERT_TRUE(close(grad.query, expected.grad.query)) << "query";
  ASSERT_TRUE(close(grad.key, expected.grad.key)) << "key";
  ASSERT_TRUE(close(grad.value, expected.grad.value)) << "value";
  if (expected.grad.bias.defined()) {
    ASSERT_TRUE(close(grad.bias, expected.grad.bias)) << "bias";
  }
}

void check(const test::NeighborhoodCase& c, const Bound& bound, CpuLevel level) {
  SCOPED_TRACE(
      fmt::format("{} {} level {}", c.text, c10::toString(bound.type), static_cast<int>(level)));
  const auto expected = by_reference(c, bound.type);
  const auto in = in_type(c.in, bound.type);
  const auto out = forward_tiled(in, level);
  compare_forward(out, expected, bound);
  const auto grad_out = c.grad_out.to(bound.type);
  const auto delta = neighborhood::delta_of(out, grad_out, c.grad_lse.to(in.accumulate()));
  compare_gradients(backward_tiled(in, out.lse, grad_out, delta, level), expected, bound);
}

void check_many(uint32_t first, int count, const test::NeighborhoodLimits& limits) {
  for (int i = 0; i < count; ++i) {
    const auto c = random_case(first + static_cast<uint32_t>(i), limits);
    for (const auto& bound : kBounds) {
      for (const auto level : levels()) check(c, bound, level);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Neighborhood, OneAxisAgreesWithTheReference) {
  check_many(1000, 60, {{40}});
}

TEST(Neighborhood, LongRowsOfPlainWindowsAgreeWithTheReference) {
  check_many(2000, 8, {{300}, false});
}

TEST(Neighborhood, TwoAxesAgreeWithTheReference) {
  check_many(3000, 40, {{12, 20}});
  check_many(4000, 5, {{9, 60}, false});
}

TEST(Neighborhood, ThreeAxesAgreeWithTheReference) {
  check_many(5000, 30, {{5, 6, 9}});
}

// Axes long enough for the backward to cut them, along each axis that it may choose.
TEST(Neighborhood, SharesOfLongAxesAgreeWithTheReference) {
  for (const bool many : {false, true}) {
    use_kv_parallelism_in_fused_na(many);
    check_many(7000, 5, {{400}, true, 9});
    check_many(7100, 5, {{60, 20}, true, 5});
    check_many(7200, 5, {{4, 50, 9}, true, 3});
    check_many(7300, 5, {{50, 4, 9}, true, 3});
  }
  use_kv_parallelism_in_fused_na(false);
}

// A problem whose windows cover their axes.
test::NeighborhoodCase plain_case(uint32_t seed, const std::vector<int64_t>& longest) {
  auto c = random_case(seed, {longest});
  for (auto& axis : c.in.axes) {
    const bool causal = axis.causal && longest.size() == 1;
    axis = {axis.length, axis.length, 1, causal ? 1 : axis.stride, causal, axis.periodic};
  }
  c.in.bias.reset();
  c.in.value = c.in.key.flip(0);
  c.grad_out = c.in.query.flip(1);
  c.grad_lse.zero_();
  return c;
}

TEST(Neighborhood, PlainAttentionAgreesWithTheReference) {
  for (uint32_t seed = 8000; seed < 8060; ++seed) {
    const auto rank = seed % 3;
    const auto c = plain_case(seed, rank == 0   ? std::vector<int64_t>{300}
                                    : rank == 1 ? std::vector<int64_t>{12, 20}
                                                : std::vector<int64_t>{4, 5, 6});
    for (const auto& bound : kBounds) {
      SCOPED_TRACE(fmt::format("{} {}", c.text, c10::toString(bound.type)));
      const auto expected = by_reference(c, bound.type);
      const auto in = in_type(c.in, bound.type);
      ASSERT_TRUE(neighborhood::is_plain(in));
      const auto out = neighborhood::forward_plain(in);
      compare_forward(out, expected, bound);
      compare_gradients(neighborhood::backward_plain(in, out, c.grad_out.to(bound.type), {}),
                        expected, bound);
      compare_forward(neighborhood::compose_plain(in), expected, bound);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Neighborhood, AnotherNumberOfThreadsGivesTheSameBits) {
  for (uint32_t seed = 6000; seed < 6010; ++seed) {
    const auto c = random_case(seed, {{60, 30}, true, 7});
    const auto in = in_type(c.in, at::kFloat);
    test::expect_same_bits(c.text, [&] {
      const auto out = forward_tiled(in);
      const auto grad_out = c.grad_out.to(at::kFloat);
      const auto g =
          backward_tiled(in, out.lse, grad_out, neighborhood::delta_of(out, grad_out, {}));
      return std::vector<at::Tensor>{
          out.out, out.lse, g.query,
          g.key,   g.value, g.bias.defined() ? g.bias : at::Tensor(at::zeros({1}))};
    });
  }
}

// Also of one sequence and head, which torch itself would give to several threads.
TEST(Neighborhood, AnotherNumberOfThreadsGivesTheSameBitsOfPlainAttention) {
  for (uint32_t seed = 9000; seed < 9030; ++seed) {
    const auto c = plain_case(seed, {900});
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const auto in = in_type(c.in, type);
      test::expect_same_bits(c.text, [&] {
        const auto out = neighborhood::forward_plain(in);
        const auto g = neighborhood::backward_plain(in, out, c.grad_out.to(type), {});
        return std::vector<at::Tensor>{out.out, out.lse, g.query, g.key, g.value};
      });
    }
  }
}

}  // namespace
}  // namespace halcyon
