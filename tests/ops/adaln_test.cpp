// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/adaln/adaln.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include "halcyon/base/describe.h"
#include "halcyon/ops/adaln/backends.h"
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
      test::gradcheck([&] { return std::vector{norm_modulate(x, a, b, 1e-3)}; }, {x, a, b}, 1e-7));
  EXPECT_TRUE(
      test::gradcheck([&] { return std::vector{gated_residual(x, y, a)}; }, {x, y, a}, 1e-8));
}

// Widths below, at and beside whole vectors; more rows than a chunk; a sample alone and several.
const std::vector<std::vector<int64_t>> kShapes{{1, 1, 3},     {2, 3, 2, 7},    {1, 300, 16},
                                                {3, 5, 2, 33}, {2, 1, 260, 64}, {1, 2, 130, 200}};

struct Precision {
  torch::ScalarType state, branch, condition;
  double bound;
};
const std::vector<Precision> kPrecisions{
    {torch::kDouble, torch::kDouble, torch::kDouble, 1e-13},
    {torch::kFloat, torch::kFloat, torch::kFloat, 3e-6},
    {torch::kFloat, torch::kBFloat16, torch::kBFloat16, 8e-3},  // as under autocast
    {torch::kBFloat16, torch::kBFloat16, torch::kBFloat16, 1.5e-2},
    {torch::kHalf, torch::kHalf, torch::kHalf, 2e-3}};

// The gradients of f at inputs with this cotangent.
template <class F>
std::vector<torch::Tensor> pulled_back(const F& f, std::vector<torch::Tensor> inputs,
                                       const torch::Tensor& cotangent) {
  for (auto& t : inputs) t = t.detach().clone().requires_grad_();
  const auto y = f(inputs);
  std::vector<torch::Tensor> result{y.detach()};
  for (const auto& g : torch::autograd::grad({y}, inputs, {cotangent.to(y.scalar_type())}))
    result.push_back(g);
  return result;
}

void expect_agreement(const std::vector<torch::Tensor>& actual,
                      const std::vector<torch::Tensor>& expected, double bound) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i)
    EXPECT_TRUE(test::near(actual[i], expected[i], bound)) << "tensor " << i;
}

template <class F, class G>
void compare(const std::vector<torch::Tensor>& inputs, double bound, const F& ours,
             const G& reference) {
  std::vector<torch::Tensor> wide;
  wide.reserve(inputs.size());
  for (const auto& t : inputs) wide.push_back(t.to(torch::kDouble));
  const auto cotangent = torch::randn_like(wide[0]);
  const auto rounded = cotangent.to(ours(inputs).scalar_type()).to(torch::kDouble);
  expect_agreement(pulled_back(ours, inputs, rounded), pulled_back(reference, wide, rounded),
                   bound);
}

TEST(AdaLN, NormModulateAgreesWithItsParts) {
  torch::manual_seed(1);
  for (const auto& shape : kShapes) {
    for (const auto& p : kPrecisions) {
      const auto x = (torch::randn(shape) * 3 + 5).to(p.state).transpose(1, -2);  // not contiguous
      const auto c = [&] { return torch::randn({shape.front(), shape.back()}).to(p.condition); };
      SCOPED_TRACE(describe(x));
      compare(
          {x, c(), c()}, p.bound,
          [](const auto& t) { return norm_modulate(t[0], t[1], t[2], 1e-6); },
          [](const auto& t) {
            return modulate(torch::layer_norm(t[0], {t[0].size(-1)}, {}, {}, 1e-6), t[1], t[2]);
          });
    }
  }
}

TEST(AdaLN, GatedResidualAgreesWithTheFormula) {
  torch::manual_seed(2);
  for (const auto& shape : kShapes) {
    for (const auto& p : kPrecisions) {
      const auto gate = torch::randn({shape.front(), shape.back()}).to(p.condition);
      compare(
          {torch::randn(shape).to(p.state), torch::randn(shape).to(p.branch), gate}, p.bound,
          [](const auto& t) { return gated_residual(t[0], t[1], t[2]); },
          [&](const auto& t) {
            std::vector<int64_t> middle(shape.size(), 1);
            middle.front() = shape.front();
            middle.back() = shape.back();
            return t[0] + t[2].view(middle) * t[1];
          });
    }
  }
}

TEST(AdaLN, EveryInstructionSetAgrees) {
  using namespace adaln_detail;
  torch::manual_seed(3);
  for (const auto type : {torch::kFloat, torch::kDouble, torch::kBFloat16}) {
    const auto x = torch::randn({2, 300, 37}).to(type), g = torch::randn({2, 300, 37}).to(type);
    const auto a = torch::randn({2, 37}), b = torch::randn({2, 37});
    const auto run = [&](CpuLevel level) {
      const auto n = norm_forward(x, a, b, 1e-6, level);
      const auto d = norm_backward(g, x, b, n.mean, n.inverse, level);
      const auto e = gate_backward(g, x, a, level);
      return std::vector<torch::Tensor>{
          n.out, d.x, d.shift, d.factor, gate_forward(x, g, a, level), e.branch, e.gate};
    };
    const auto expected = run(CpuLevel::baseline);
    for (const auto level : test::levels())
      expect_agreement(run(level), expected,
                       type == torch::kDouble     ? 1e-13
                       : type == torch::kBFloat16 ? 8e-3
                                                  : 2e-6);
  }
}

TEST(AdaLN, AnotherNumberOfThreadsGivesTheSameBits) {
  torch::manual_seed(4);
  const std::vector<torch::Tensor> inputs{torch::randn({1, 2, 3000, 96}), torch::randn({1, 96}),
                                          torch::randn({1, 96})};
  const auto g = torch::randn({1, 2, 3000, 96});
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    auto all =
        pulled_back([](const auto& t) { return norm_modulate(t[0], t[1], t[2], 1e-6); }, inputs, g);
    for (const auto& t : pulled_back(
             [](const auto& t) {
               return gated_residual(t[0], t[0] + t[2].unsqueeze(1).unsqueeze(1), t[1]);
             },
             inputs, g))
      all.push_back(t);
    return all;
  };
  const int before = at::get_num_threads();
  const auto one = run(1);
  for (const int threads : {2, 3, 5}) {
    const auto many = run(threads);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(test::identical(many[i], one[i])) << i;
  }
  at::set_num_threads(before);
}

TEST(AdaLN, SecondDerivativesInDouble) {
  const auto x = torch::randn({2, 3, 4}, torch::kDouble).requires_grad_(),
             a = torch::randn({2, 4}, torch::kDouble).requires_grad_(),
             b = torch::randn({2, 4}, torch::kDouble).requires_grad_();
  const auto w = torch::randn({2, 3, 4}, torch::kDouble);
  const auto gradients = [&](const auto& f) {
    const at::AutoGradMode with_graph(true);
    const auto y = f();
    return torch::autograd::grad({(y * w).sum()}, {x, a, b}, {}, true, true, true);
  };
  EXPECT_TRUE(test::gradcheck(
      [&] { return std::vector{gradients([&] { return norm_modulate(x, a, b, 1e-3); })[0]}; },
      {x, b}, 1e-7));
  EXPECT_TRUE(test::gradcheck(
      [&] { return std::vector{gradients([&] { return gated_residual(x, x * x, a); })[1]}; }, {x},
      1e-7));
}

TEST(AdaLN, RefusesWhatDoesNotFit) {
  const auto x = torch::zeros({2, 3, 4}), c = torch::zeros({2, 4});
  expect_error("rank 3 or 4", [&] { modulate(x[0], c, c); });
  expect_error("rank 3 or 4", [&] { modulate(torch::zeros({2, 3, 4, 4, 4}), c, c); });
  expect_error("shift of shape (2, 4)", [&] { modulate(x, c.slice(1, 0, 3), c); });
  expect_error("scale of shape (2, 4)", [&] { modulate(x, c, c.slice(0, 0, 1)); });
  expect_error("a floating type", [&] { modulate(x.to(torch::kInt), c, c); });
  expect_error("shift of shape (2, 4)", [&] { norm_modulate(x, c.slice(1, 0, 3), c, 1e-6); });
  expect_error("an eps of 0 or more", [&] { norm_modulate(x, c, c, -1); });
  expect_error("branch of residual's shape", [&] { gated_residual(x, x.slice(1, 0, 2), c); });
  expect_error("gate of rank 2", [&] { gated_residual(x, x, c[0]); });
}

}  // namespace
}  // namespace halcyon
