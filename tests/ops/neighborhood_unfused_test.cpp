// SPDX-License-Identifier: Apache-2.0
// The kernels of unfused neighborhood attention against the composition of ATen operators in
// double, through every instruction set.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "halcyon/ops/neighborhood/unfused_backends.h"
#include "tests/ops/neighborhood_case.h"
#include "tests/ops/ops_test.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using neighborhood::Axis;
using test::identical;
using test::levels;
using test::near;
using MaybeTensor = std::optional<at::Tensor>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Bound {
  at::ScalarType type;
  double allowed;
};
constexpr Bound kBounds[] = {
    {at::kDouble, 1e-12}, {at::kFloat, 1e-5}, {at::kBFloat16, 1e-2}, {at::kHalf, 2e-3}};

// x (B, H, *, d) and y give attn; attn and y of width d give x.
struct Problem {
  std::vector<Axis> axes;
  at::Tensor x, y, attn;
  MaybeTensor bias, more;
  std::string text;

  Problem to(at::ScalarType type) const {
    const auto cast = [&](const MaybeTensor& t) { return t ? MaybeTensor(t->to(type)) : t; };
    return {axes, x.to(type), y.to(type), attn.to(type), cast(bias), cast(more), text};
  }
};

// Options, axes and layouts of a fused case, widths and additional tokens of its own.
Problem problem(uint32_t seed, const test::NeighborhoodLimits& limits) {
  const auto c = test::random_case(seed, limits);
  std::mt19937 random(seed);
  const auto generator = at::detail::createCPUGenerator(seed);
  const auto normal = [&](std::vector<int64_t> sizes) {
    return at::randn(sizes, generator, at::TensorOptions(at::kDouble));
  };
  Problem p{c.in.axes, {}, {}, {}, {}, {}, c.text};
  int64_t window = 1, causal = 0;
  std::vector<int64_t> table{2};
  for (const auto& axis : p.axes) {
    window *= axis.kernel;
    causal += axis.causal;
    table.push_back(2 * axis.kernel - 1);
  }
  const int64_t batch = random() % 10 == 0 ? 0 : c.in.query.size(0), more = random() % 6;
  auto shape = c.in.query.sizes().vec();
  shape.erase(shape.end() - 2);
  shape.insert(shape.begin() + 1, 2);
  shape[0] = batch;
  const auto tokens = [&](int64_t channels) {
    shape.back() = channels;
    const auto t = normal(shape);
    if (batch > 0 && random() % 5 == 0)
      return t.select(1, 0).unsqueeze(1).expand(shape);  // heads share it
    return batch > 0 ? test::in_some_layout(random, t) : t;
  };
  p.x = tokens(c.in.query.size(-1));
  p.y = tokens(c.in.query.size(-1));
  p.attn = tokens(window + more);
  if (more > 0) p.more = normal({batch, 2, more, c.in.query.size(-1)});
  if (causal == 0 && random() % 2 == 0) p.bias = normal(table);
  p.text += fmt::format(" unfused B {} N {}{}", batch, more, p.bias ? " bias" : "");
  return p;
}

// Scores, sums, and the gradients of both: with these g = attn and g = x come in.
struct Results {
  at::Tensor scores, sums, of_x, of_y, of_more, of_bias;

  std::vector<std::pair<const char*, at::Tensor>> all() const {
    return {{"scores", scores}, {"sums", sums},       {"of_x", of_x},
            {"of_y", of_y},     {"of_more", of_more}, {"of_bias", of_bias}};
  }
};

Results by_kernels(const Problem& p, CpuLevel level = cpu_level()) {
  Results r;
  r.scores = neighborhood::window_scores(p.x, p.y, p.bias, p.more, p.axes, -kInfinity, level);
  r.sums = neighborhood::window_sums(p.attn, p.y, p.more, p.axes, level);
  r.of_x = r.sums;  // the scores' derivative is this product
  auto [keys, more] = neighborhood::window_key_sums(p.attn, p.x, p.axes, level);
  r.of_y = keys;
  r.of_more = more;
  if (p.bias) r.of_bias = neighborhood::window_bias_sums(p.attn, p.axes);
  return r;
}

Results by_reference(Problem p) {
  for (auto* t : {&p.x, &p.y}) *t = t->detach().clone().requires_grad_();
  for (auto* t : {&p.bias, &p.more}) {
    if (*t) *t = (*t)->detach().clone().requires_grad_();
  }
  Results r;
  const auto scores = neighborhood::reference_scores(p.x, p.y, p.bias, p.more, p.axes, -kInfinity);
  // what comes in at unused slots is not read
  (scores.masked_fill(scores == -kInfinity, 0) * p.attn).sum().backward();
  r.scores = scores.detach();
  r.sums = neighborhood::reference_sums(p.attn, p.y.detach(),
                                        p.more ? MaybeTensor(p.more->detach()) : p.more, p.axes);
  r.of_x = p.x.grad();
  r.of_y = p.y.grad();
  if (p.more) r.of_more = p.more->grad();
  if (p.bias) r.of_bias = p.bias->grad();
  return r;
}

testing::AssertionResult agree(const at::Tensor& actual, const at::Tensor& expected,
                               double allowed) {
  const auto filled = expected > -kInfinity;
  if (!at::equal(actual > -kInfinity, filled))
    return testing::AssertionFailure() << "-infinity at other places";
  return near(actual.masked_select(filled).to(at::kDouble), expected.masked_select(filled),
              allowed);
}

void check(const Problem& exact, const Bound& bound, CpuLevel level) {
  SCOPED_TRACE(fmt::format("{} {} level {}", exact.text, c10::toString(bound.type),
                           static_cast<int>(level)));
  const auto p = exact.to(bound.type);
  const auto expected = by_reference(p.to(at::kDouble)).all(), actual = by_kernels(p, level).all();
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const auto& [name, wanted] = expected[i];
    if (!wanted.defined()) continue;
    ASSERT_EQ(actual[i].second.scalar_type(), bound.type) << name;
    ASSERT_EQ(actual[i].second.sizes(), wanted.sizes()) << name;
    if (wanted.numel() > 0) {
      ASSERT_TRUE(agree(actual[i].second, wanted, bound.allowed)) << name;
    }
  }
}

void check_many(uint32_t first, int count, const test::NeighborhoodLimits& limits) {
  for (int i = 0; i < count; ++i) {
    const auto p = problem(first + static_cast<uint32_t>(i), limits);
    for (const auto& bound : kBounds) {
      for (const auto level : levels()) check(p, bound, level);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(UnfusedNeighborhood, OneAxisAgreesWithTheReference) {
  check_many(1000, 80, {{40}});
}

TEST(UnfusedNeighborhood, LongRowsOfPlainWindowsAgreeWithTheReference) {
  check_many(2000, 10, {{300}, false});
}

TEST(UnfusedNeighborhood, TwoAxesAgreeWithTheReference) {
  check_many(3000, 50, {{12, 20}});
  check_many(4000, 8, {{9, 60}, false});
}

TEST(UnfusedNeighborhood, ThreeAxesAgreeWithTheReference) {
  check_many(5000, 40, {{5, 6, 9}});
}

TEST(UnfusedNeighborhood, LargeWindowsAgreeWithTheReference) {
  // more slots than a step of the fused kernels holds
  const auto p = [&] {
    auto q = problem(1, {{2, 2}});
    q.axes = {{40, 37, 1, 1, false, false}, {41, 30, 1, 1, true, false}};
    q.bias = {};
    q.more = at::randn({1, 2, 3, 5}, at::kDouble);
    q.x = at::randn({1, 2, 40, 41, 5}, at::kDouble);
    q.y = at::randn({1, 2, 40, 41, 5}, at::kDouble);
    q.attn = at::randn({1, 2, 40, 41, 37 * 30 + 3}, at::kDouble);
    q.text = "large window";
    return q;
  }();
  check(p, kBounds[1], cpu_level());
}

TEST(UnfusedNeighborhood, UnusedSlotsAreNotRead) {
  for (uint32_t seed = 7000; seed < 7040; ++seed) {
    auto p = problem(seed, {{6, 20}});
    p.bias = {};
    if (p.x.size(0) == 0) continue;
    const auto clean = by_kernels(p);
    const auto unused = clean.scores == -kInfinity;
    p.attn = p.attn.masked_fill(unused, std::numeric_limits<double>::quiet_NaN());
    const auto dirty = by_kernels(p).all(), wanted = clean.all();
    for (std::size_t i = 0; i < dirty.size(); ++i) {
      if (wanted[i].second.defined()) {
        EXPECT_TRUE(identical(dirty[i].second, wanted[i].second)) << wanted[i].first << p.text;
      }
    }
    const auto zero = neighborhood::window_scores(p.x, p.y, {}, p.more, p.axes, 0);
    EXPECT_TRUE(identical(zero, clean.scores.masked_fill(unused, 0))) << p.text;
  }
}

TEST(UnfusedNeighborhood, AnotherNumberOfThreadsGivesTheSameBits) {
  const int before = at::get_num_threads();
  for (uint32_t seed = 6000; seed < 6020; ++seed) {
    const auto p = problem(seed, {{12, 30}}).to(at::kFloat);
    const auto run = [&](int threads) {
      at::set_num_threads(threads);
      return by_kernels(p).all();
    };
    const auto one = run(1);
    for (const int threads : {2, 3, 5}) {
      const auto many = run(threads);
      for (std::size_t i = 0; i < one.size(); ++i) {
        if (one[i].second.defined()) {
          EXPECT_TRUE(identical(many[i].second, one[i].second)) << one[i].first << p.text;
        }
      }
    }
  }
  at::set_num_threads(before);
}

}  // namespace
}  // namespace halcyon
