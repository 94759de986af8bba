// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

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
using test::identical;
using test::levels;
using test::near;
using test::random_case;

// Largest error allowed, relative to the largest magnitude of the tensor.
struct Bound {
  at::ScalarType type;
  double forward, backward;
};
constexpr Bound kBounds[] = {{at::kDouble, 1e-12, 1e-11},
                             {at::kFloat, 2e-5, 5e-5},
                             {at::kBFloat16, 2e-2, 4e-2},
                             {at::kHalf, 3e-3, 1e-2}};

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

void check(const test::NeighborhoodCase& c, const Bound& bound, CpuLevel level) {
  SCOPED_TRACE(
      fmt::format("{} {} level {}", c.text, c10::toString(bound.type), static_cast<int>(level)));
  const auto expected = by_reference(c, bound.type);
  const auto in = in_type(c.in, bound.type);
  const auto out = forward_tiled(in, level);
  ASSERT_EQ(out.out.scalar_type(), bound.type);
  ASSERT_TRUE(near(out.out, expected.output.out, bound.forward));
  ASSERT_TRUE(near(out.lse, expected.output.lse, bound.forward));
  const auto grad_out = c.grad_out.to(bound.type);
  const auto delta = neighborhood::delta_of(out, grad_out, c.grad_lse.to(in.accumulate()));
  const auto grad = backward_tiled(in, out.lse, grad_out, delta, level);
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
  if (in.bias) {
    ASSERT_TRUE(close(grad.bias, expected.grad.bias)) << "bias";
  }
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

TEST(Neighborhood, AnotherNumberOfThreadsGivesTheSameBits) {
  for (uint32_t seed = 6000; seed < 6010; ++seed) {
    const auto c = random_case(seed, {{12, 30}});
    const auto in = in_type(c.in, at::kFloat);
    const auto run = [&](int threads) {
      at::set_num_threads(threads);
      const auto out = forward_tiled(in);
      const auto grad_out = c.grad_out.to(at::kFloat);
      const auto g =
          backward_tiled(in, out.lse, grad_out, neighborhood::delta_of(out, grad_out, {}));
      return std::vector<at::Tensor>{
          out.out, out.lse, g.query,
          g.key,   g.value, g.bias.defined() ? g.bias : at::Tensor(at::zeros({1}))};
    };
    const int before = at::get_num_threads();
    const auto one = run(1);
    for (const int threads : {2, 3, 5}) {
      const auto many = run(threads);
      for (std::size_t i = 0; i < one.size(); ++i)
        EXPECT_TRUE(identical(many[i], one[i])) << c.text;
    }
    at::set_num_threads(before);
  }
}

}  // namespace
}  // namespace halcyon
