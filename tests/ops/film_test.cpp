// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/film/film_tokenizer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "halcyon/ops/film/backends.h"
#include "tests/ops/ops_test.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/gradcheck.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using film_detail::Inputs;
using test::expect_error;
using test::identical;
using test::levels;
using test::near;

struct Widths {
  int64_t rows, meta, type, channel, platform, hidden, out;
};
// Production's widths, and odd ones; rows beyond and below a block; no platform.
const std::vector<Widths> kWidths{{300, 50, 4, 16, 8, 64, 32}, {65, 30, 4, 4, 0, 64, 32},
                                  {7, 3, 1, 2, 5, 9, 5},       {1, 1, 1, 1, 0, 3, 1},
                                  {130, 28, 3, 7, 2, 33, 17},  {0, 5, 2, 2, 2, 8, 4}};

Inputs make_inputs(const Widths& w, at::ScalarType type) {
  at::manual_seed(9);
  constexpr int64_t kRows = 40;
  const int64_t cond = w.meta + w.type + w.channel + w.platform;
  const auto random = [&](std::vector<int64_t> shape, double size) {
    return (at::randn(shape, at::kDouble) * size).to(type);
  };
  Inputs in{{random({w.rows}, 1), random({w.rows, w.meta}, 1),
             random({w.hidden, cond}, 1 / std::sqrt(cond)), random({w.hidden}, 0.3),
             random({w.hidden}, 1) + 1, random({w.hidden}, 0.3),
             random({2 * w.out, w.hidden}, 1 / std::sqrt(w.hidden)), random({2 * w.out}, 0.3),
             random({kRows, w.type}, 1), random({kRows, w.channel}, 1)},
            {at::randint(kRows, {w.rows}, at::kLong), at::randint(kRows, {w.rows}, at::kInt)},
            1e-5};
  if (w.platform > 0) {
    in.floats.push_back(random({kRows, w.platform}, 1));
    in.ids.push_back(at::randint(kRows, {w.rows}, at::kLong));
  }
  return in;
}

at::Tensor call(const Inputs& in) {
  using namespace film_detail;
  const auto& f = in.floats;
  const bool platform = in.ids.size() > 2;
  using Maybe = std::optional<at::Tensor>;
  return film_tokenizer(f[kObs], f[kMeta], in.ids[0], in.ids[1],
                        platform ? Maybe(in.ids[2]) : Maybe(), f[kTables], f[kTables + 1],
                        platform ? Maybe(f[kTables + 2]) : Maybe(), f[kWeight1], f[kBias1],
                        f[kNormWeight], f[kNormBias], f[kWeight2], f[kBias2], in.eps);
}

Inputs cast(Inputs in, at::ScalarType type) {
  for (auto& t : in.floats) t = t.detach().to(type).clone().requires_grad_();
  return in;
}

TEST(FilmTokenizer, Golden) {
  HALCYON_NEEDS_SHARED();
  const auto g = test::golden("healda/obs_tokenizer_film_platform");
  const auto run = [&](at::ScalarType type, const std::string& suffix, double bound,
                       double gradient_bound) {
    std::map<std::string, at::Tensor> in, param;
    for (const auto* name : {"obs", "float_metadata"})
      in[name] = g.at(std::string("in.") + name).to(type).clone().requires_grad_();
    for (const auto& [name, t] : g.under("param."))
      param[name] = t.to(type).clone().requires_grad_();
    const auto y = film_tokenizer(
        in["obs"], in["float_metadata"], g.at("in.obs_type"), g.at("in.channel"),
        g.at("in.platform"), param["embed_table.weight"], param["channel_embedding.weight"],
        param["platform_embedding.weight"], param["cond_mlp.0.weight"], param["cond_mlp.0.bias"],
        param["cond_mlp.1.weight"], param["cond_mlp.1.bias"], param["cond_mlp.3.weight"],
        param["cond_mlp.3.bias"]);
    EXPECT_TRUE(near(y, g.at("out" + suffix + ".y"), bound));
    y.backward(g.at("gradout.y").to(type));
    for (const auto& [name, t] : in)
      EXPECT_TRUE(near(t.grad(), g.at("grad" + suffix + ".in." + name), gradient_bound)) << name;
    for (const auto& [name, t] : param)
      EXPECT_TRUE(near(t.grad(), g.at("grad.param." + name), test::kGradient)) << name;
  };
  run(at::kFloat, "", test::kLayer, test::kGradient);
  run(at::kDouble, "64", test::kDouble, test::kDouble);
}

TEST(FilmTokenizer, EveryInstructionSetAgreesWithTheComposition) {
  for (size_t i = 0; i < kWidths.size(); ++i) {
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
      const auto in = make_inputs(kWidths[i], type);
      const auto exact = cast(in, at::kDouble);
      const auto expected = film_detail::composed(exact);
      const auto grad_out = at::randn_like(expected).to(type);
      expected.backward(grad_out.to(at::kDouble));
      const double bound = type == at::kFloat ? 5e-6 : type == at::kDouble ? 1e-13 : 5e-3;
      for (const auto level : levels()) {
        SCOPED_TRACE(fmt::format("case {} type {} level {}", i, c10::toString(type), int(level)));
        const auto y = film_detail::forward_cpu(in, level);
        EXPECT_EQ(y.scalar_type(), type);
        EXPECT_TRUE(near(y, expected, bound));
        const auto grad = film_detail::backward_cpu(in, grad_out, true, level);
        ASSERT_EQ(grad.size(), in.floats.size());
        for (size_t k = 0; k < grad.size(); ++k) {
          EXPECT_TRUE(near(grad[k], exact.floats[k].grad(), 4 * bound)) << "input " << k;
          EXPECT_EQ(grad[k].scalar_type(), type);
        }
      }
    }
  }
}

TEST(FilmTokenizer, MetadataWithoutAGradientChangesNoOther) {
  const auto gradients = [](bool of_metadata) {
    const auto in = cast(make_inputs(kWidths[0], at::kFloat), at::kFloat);
    in.floats[film_detail::kMeta].requires_grad_(of_metadata);
    const auto y = call(in);
    y.backward(y.detach());
    EXPECT_EQ(in.floats[film_detail::kMeta].grad().defined(), of_metadata);
    return in.floats;
  };
  const auto with = gradients(true), without = gradients(false);
  for (size_t i = 0; i < with.size(); ++i) {
    if (i == film_detail::kMeta) continue;
    EXPECT_TRUE(identical(without[i].grad(), with[i].grad())) << i;
  }
}

TEST(FilmTokenizer, GradcheckInDouble) {
  const auto in = cast(make_inputs({6, 3, 2, 2, 3, 7, 4}, at::kDouble), at::kDouble);
  EXPECT_TRUE(test::gradcheck([&] { return std::vector{call(in)}; }, in.floats, 1e-7));
}

TEST(FilmTokenizer, SameBitsForAnyNumberOfThreads) {
  const auto in = make_inputs({30000, 30, 4, 16, 8, 64, 32}, at::kFloat);
  const auto outcome = [&](int threads) {
    at::set_num_threads(threads);
    const auto leaves = cast(in, at::kFloat);
    const auto y = call(leaves);
    y.backward(y.detach());
    std::vector<at::Tensor> all{y};
    for (const auto& t : leaves.floats) all.push_back(t.grad());
    return all;
  };
  const int threads = at::get_num_threads();
  const auto one = outcome(1), two = outcome(2), three = outcome(3);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_TRUE(identical(two[i], one[i])) << i;
    EXPECT_TRUE(identical(three[i], one[i])) << i;
  }
}

TEST(FilmTokenizer, StridedInputsAndIntIds) {
  auto in = make_inputs(kWidths[0], at::kFloat);
  const auto expected = call(in);
  for (auto& t : in.floats) t = at::stack({t, t + 1}, -1).select(-1, 0);
  for (auto& t : in.ids) t = at::stack({t, t}, -1).select(-1, 0).to(at::kInt);
  EXPECT_TRUE(identical(call(in), expected));
}

TEST(FilmTokenizer, MixedTypesAndAutocast) {
  const auto in = make_inputs(kWidths[0], at::kFloat);
  const auto expected = call(in);
  auto mixed = in;
  for (size_t i = 1; i < mixed.floats.size(); ++i)
    mixed.floats[i] = mixed.floats[i].to(at::kBFloat16);
  EXPECT_EQ(call(mixed).scalar_type(), at::kFloat);
  EXPECT_TRUE(near(call(mixed), expected, test::kBf16));
  auto half = in;
  for (auto& t : half.floats) t = t.to(at::kHalf);
  EXPECT_EQ(call(half).scalar_type(), at::kHalf);
  auto narrow = in;
  narrow.floats[film_detail::kObs] = in.floats[film_detail::kObs].to(at::kBFloat16);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const auto wide = call(in), cast_result = call(narrow);
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(wide.scalar_type(), at::kFloat);
  EXPECT_EQ(cast_result.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(near(wide, expected, test::kBf16));
}

TEST(FilmTokenizer, WithoutObservationsParametersStillHaveGradients) {
  const auto in = cast(make_inputs(kWidths.back(), at::kFloat), at::kFloat);
  call(in).sum().backward();
  for (const auto& t : in.floats) {
    ASSERT_TRUE(t.grad().defined());
    EXPECT_TRUE(identical(t.grad(), at::zeros_like(t)));
  }
}

TEST(FilmTokenizer, MetaShapes) {
  auto in = make_inputs(kWidths[0], at::kFloat);
  for (auto& t : in.floats) t = t.to(at::kMeta);
  for (auto& t : in.ids) t = t.to(at::kMeta);
  EXPECT_EQ(call(in).sizes(), at::IntArrayRef({300, 32}));
}

TEST(FilmTokenizer, RefusesASecondDerivative) {
  const auto in = cast(make_inputs(kWidths[2], at::kFloat), at::kFloat);
  const auto y = call(in);
  expect_error("create_graph", [&] {
    torch::autograd::grad({y.sum()}, {in.floats[0]}, {}, true, /*create_graph=*/true);
  });
}

TEST(FilmTokenizer, RefusesWhatDoesNotFit) {
  using namespace film_detail;
  const auto expect = [&](const std::string& part, auto&& change) {
    auto in = make_inputs(kWidths[0], at::kFloat);
    change(in);
    expect_error(part, [&] { call(in); });
  };
  expect("obs of rank 1", [](auto& in) { in.floats[kObs] = in.floats[kMeta]; });
  expect("300 rows of float_metadata", [](auto& in) { in.floats[kMeta] = at::zeros({3, 50}); });
  expect("obs_type of length 300", [](auto& in) { in.ids[0] = in.ids[0].slice(0, 1); });
  expect("channel of rank 1 in int32", [](auto& in) { in.ids[1] = in.floats[kObs]; });
  expect("obs_type in [0, 40), got 40", [](auto& in) { in.ids[0][5] = 40; });
  expect("channel in [0, 40), got -1", [](auto& in) { in.ids[1][299] = -1; });
  expect("platform in [0, 40), got 99", [](auto& in) { in.ids[2][0] = 99; });
  expect("weight1 of shape (64, 78)", [](auto& in) { in.floats[kWeight1] = at::zeros({64, 77}); });
  expect("bias1 of length 64", [](auto& in) { in.floats[kBias1] = at::zeros({63}); });
  expect("norm_weight of length 64", [](auto& in) { in.floats[kNormWeight] = at::zeros({1}); });
  expect("weight2 of shape", [](auto& in) { in.floats[kWeight2] = at::zeros({64, 63}); });
  expect("2 * out rows, got 63", [](auto& in) { in.floats[kWeight2] = at::zeros({63, 64}); });
  expect("bias2 of length 64", [](auto& in) { in.floats[kBias2] = at::zeros({32}); });
  const auto in = make_inputs(kWidths[0], at::kFloat);
  const auto& f = in.floats;
  EXPECT_THROW(film_tokenizer(f[kObs], f[kMeta], in.ids[0], in.ids[1], {}, f[kTables],
                              f[kTables + 1], f[kTables + 2], f[kWeight1], f[kBias1],
                              f[kNormWeight], f[kNormBias], f[kWeight2], f[kBias2]),
               Error);
}

}  // namespace
}  // namespace halcyon
