// SPDX-License-Identifier: Apache-2.0
// adaLN, the conditioning embedders and the calendar.
#include <cmath>

#include "halcyon/nn/adaln.h"
#include "halcyon/nn/calendar.h"
#include "halcyon/nn/embedders.h"
#include "tests/nn/golden_module.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"
#include "tests/support/paths.h"

namespace halcyon::test {
namespace {

TEST(AdaLN, Goldens) {
  HALCYON_NEEDS_SHARED();
  for (const std::string blocks : {"1block", "2block"}) {
    const auto g = golden("healda/adaln_modulation_" + blocks);
    const int64_t n = g.config["n_blocks"];
    AdaLNModulation adaln(g.config["embedding_dim"].get<int64_t>(),
                          g.config["condition_embed_dim"].get<int64_t>(), n);
    check_golden(g, *adaln, [&](const Named& in) {
      Named out;
      const auto parts = adaln->forward(in.at("c"));
      for (int64_t i = 0; i < n; ++i) {
        out["shift" + std::to_string(i)] = parts[3 * i];
        out["scale" + std::to_string(i)] = parts[3 * i + 1];
        out["gate" + std::to_string(i)] = parts[3 * i + 2];
      }
      return out;
    });
  }
}

TEST(AdaLN, ZeroInitAndGradients) {
  EXPECT_EQ(AdaLNModulation(4, 3)->projection()->weight.abs().max().item<float>(), 0.0f);
  AdaLNModulation drawn(4, 3, 1, false);
  const float bound = 1 / std::sqrt(3.0f);
  EXPECT_GT(drawn->projection()->weight.abs().max().item<float>(), 0.1f * bound);
  EXPECT_LE(drawn->projection()->weight.abs().max().item<float>(), bound);
  const auto c = leaf({2, 3});
  EXPECT_TRUE(gradcheck([&] { return drawn->forward(c); }, double_leaves(*drawn, {c})));
  AdaLNModulation without_condition(4, 0);
  EXPECT_EQ(without_condition->forward(torch::zeros({5, 0})).size(), 3u);
}

TEST(AdaLN, Refuses) {
  AdaLNModulation adaln(4, 3);
  EXPECT_TRUE(refuses([&] { adaln->forward(torch::zeros({2, 5})); }, "c of width 3, got (2, 5)"));
  EXPECT_TRUE(refuses([&] { adaln->forward(torch::zeros({3})); }, "(B, condition_embed_dim)"));
  EXPECT_TRUE(refuses([&] { adaln->forward(torch::zeros({2, 3}, torch::kLong)); }, "floating c"));
  EXPECT_TRUE(refuses([&] { adaln->forward(torch::zeros({2, 3}, torch::kDouble)); }, "dtype"));
  EXPECT_TRUE(refuses([] { AdaLNModulation(4, 3, 0); }, "n_blocks"));
}

Named embedded(EDMConditionEmbedder& embedder, const Named& in) {
  std::optional<at::Tensor> condition;
  if (in.contains("condition")) condition = in.at("condition");
  return {{"emb", embedder->forward(in.at("t"), condition)},
          {"noise_features", embedder->noise_features(in.at("t"))}};
}

TEST(EdmEmbedder, Goldens) {
  HALCYON_NEEDS_SHARED();
  for (const std::string name : {"nocond", "cond5", "legacybias"}) {
    const auto g = golden("healda/edm_embedder_" + name);
    EDMConditionEmbedderOptions options;
    options.emb_channels = g.config["emb_channels"];
    options.noise_channels = g.config["noise_channels"];
    options.condition_dim = g.config.value("condition_dim", 0);
    options.legacy_condition_bias = g.config.value("legacy_condition_bias", false);
    EDMConditionEmbedder embedder(options);
    // the frequencies are computed, not only loaded
    EXPECT_TRUE(
        near(embedder->named_buffers()["map_noise.freqs"], g.at("param.map_noise.freqs"), 1e-7));
    check_golden(g, *embedder, [&](const Named& in) { return embedded(embedder, in); });
  }
}

TEST(EdmEmbedder, AtZeroNoise) {
  EDMConditionEmbedder embedder(EDMConditionEmbedderOptions{8, 6});
  const auto e = embedder->noise_features(torch::zeros({2}));
  EXPECT_TRUE(identical(e, torch::tensor({{0, 0, 0, 1, 1, 1}, {0, 0, 0, 1, 1, 1}}).to(at::kFloat)));
}

TEST(EdmEmbedder, ConditionDropout) {
  torch::manual_seed(7);
  EDMConditionEmbedderOptions options{4, 4, 3};
  options.condition_dropout = 0.25;
  EDMConditionEmbedder embedder(options);
  const auto t = torch::zeros({4000}), labels = torch::ones({4000, 3});
  embedder->train();
  const auto without = embedder->forward(t.narrow(0, 0, 1), torch::zeros({1, 3}));
  const auto lost = (embedder->forward(t, labels) - without).abs().sum(1).lt(1e-6);
  EXPECT_NEAR(lost.to(at::kFloat).mean().item<double>(), 0.25, 0.03);
  embedder->eval();
  const auto kept = embedder->forward(t, labels);
  EXPECT_TRUE(identical(kept[0], kept[3999]));
  EXPECT_TRUE(near(kept[0], embedder->forward(t, labels)[17], 0));
}

TEST(EdmEmbedder, GradientsAndErrors) {
  EDMConditionEmbedder embedder(EDMConditionEmbedderOptions{4, 6, 3});
  const auto t = torch::rand({2}, torch::kDouble), condition = leaf({2, 3});
  EXPECT_TRUE(gradcheck([&] { return std::vector{embedder->forward(t, condition)}; },
                        double_leaves(*embedder, {condition})));
  EDMConditionEmbedder fresh(EDMConditionEmbedderOptions{4, 6, 3});
  EXPECT_TRUE(refuses([&] { fresh->forward(torch::zeros({2, 1})); }, "t (B,)"));
  EXPECT_TRUE(refuses(
      [&] {
        fresh->forward(torch::zeros({2}), torch::zeros({2, 4}));
      },
      "condition (2, 3), got (2, 4)"));
  EXPECT_TRUE(refuses(
      [] {
        EDMConditionEmbedder(EDMConditionEmbedderOptions{4, 2});
      },
      "noise_channels even and at least 4, got 2"));
  EXPECT_TRUE(refuses(
      [] {
        EDMConditionEmbedder(EDMConditionEmbedderOptions{0, 6});
      },
      "emb_channels"));
}

TEST(DitEmbedder, WrittenOut) {
  DiTConditionEmbedder embedder(DiTConditionEmbedderOptions{6, 2});
  const auto state = embedder->named_parameters();
  EXPECT_EQ(state.size(), 5u);
  EXPECT_EQ(state["t_embedder.mlp.0.weight"].sizes(), at::IntArrayRef({12, 6}));
  EXPECT_EQ(state["t_embedder.mlp.2.weight"].sizes(), at::IntArrayRef({6, 12}));
  EXPECT_EQ(state["cond_embedder.weight"].abs().max().item<float>(), 0.0f);
  embedder->to(torch::kDouble);
  const auto t = leaf({3}), condition = leaf({3, 2});
  const auto leaves = double_leaves(*embedder, {t, condition});
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < 3; ++b) {
    auto e = torch::zeros({6}, torch::kDouble);
    for (int64_t i = 0; i < 3; ++i) {
      const double x = t[b].item<double>() * std::pow(1e-4, i / 3.0);
      e[i] = std::cos(x);
      e[3 + i] = std::sin(x);
    }
    const auto hidden =
        torch::matmul(state["t_embedder.mlp.0.weight"], e) + state["t_embedder.mlp.0.bias"];
    rows.push_back(torch::matmul(state["t_embedder.mlp.2.weight"], hidden * hidden.sigmoid()) +
                   state["t_embedder.mlp.2.bias"] +
                   torch::matmul(state["cond_embedder.weight"], condition[b]));
  }
  // the frequencies are single precision
  EXPECT_TRUE(near(embedder->forward(t, condition), torch::stack(rows), 1e-7));
  EXPECT_TRUE(gradcheck([&] { return std::vector{embedder->forward(t, condition)}; }, leaves));
}

TEST(Embedders, ByName) {
  EXPECT_EQ(make_conditioning_embedder("EDM", 8, 12, 6, 0)->output_dim(), 12);
  EXPECT_EQ(make_conditioning_embedder("Dit", 8, 12, 6, 0)->output_dim(), 8);
  const auto zero = make_conditioning_embedder("zero", 8, 12, 6, 0);
  EXPECT_EQ(zero->output_dim(), 0);
  EXPECT_EQ(zero->embed(torch::zeros({3}), std::nullopt).sizes(), at::IntArrayRef({3, 0}));
  EXPECT_TRUE(refuses([] { make_conditioning_embedder("none", 8, 12, 6, 0); },
                      "\"edm\", \"dit\" or \"zero\", got \"none\""));
  ConditioningEmbedderKwargs kwargs;
  kwargs.legacy_condition_bias = true;
  EXPECT_TRUE(refuses([&] { make_conditioning_embedder("dit", 8, 12, 6, 0, kwargs); },
                      "legacy_condition_bias"));
}

TEST(Calendar, LegacyGolden) {
  HALCYON_NEEDS_SHARED();
  const auto g = golden("healda/calendar_legacy");
  CalendarEmbedding calendar(g.at("in.lon"), g.config["embed_channels"].get<int64_t>(), true);
  const auto y = calendar->forward(g.at("in.day_of_year"), g.at("in.second_of_day"));
  EXPECT_TRUE(near(y, g.at("out.calendar"), kLayer));
  EXPECT_TRUE(calendar->named_buffers().is_empty());
  EXPECT_TRUE(calendar->parameters().empty());
}

// By hand, with a longitude whose offset is not a whole second: it is rounded down.
TEST(Calendar, WrittenOut) {
  const double lon = 100.003;  // 24000.72 s
  CalendarEmbedding calendar(torch::tensor({lon, 359.0}, torch::kDouble), 2);
  const auto day = torch::tensor({{45.5}}, torch::kDouble);
  const auto y = calendar->forward(day, torch::tensor({{70000.0}}, torch::kDouble));
  ASSERT_EQ(y.sizes(), at::IntArrayRef({1, 8, 1, 2}));
  const double a = (70000.0 + 24000 - 86400) / 86400, b = 45.5 / 365.25, pi = std::acos(-1.0);
  const std::vector<double> expected{
      std::cos(2 * pi * a), std::cos(4 * pi * a), std::sin(2 * pi * a), std::sin(4 * pi * a),
      std::cos(2 * pi * b), std::cos(4 * pi * b), std::sin(2 * pi * b), std::sin(4 * pi * b)};
  for (int64_t i = 0; i < 8; ++i) EXPECT_NEAR(y[0][i][0][0].item<double>(), expected[i], 1e-6) << i;
}

TEST(Calendar, Refuses) {
  CalendarEmbedding calendar(torch::zeros({4}), 2);
  EXPECT_TRUE(refuses(
      [&] {
        calendar->forward(torch::zeros({1, 2}), torch::zeros({1, 3}));
      },
      "of one shape"));
  EXPECT_TRUE(refuses([&] { calendar->forward(torch::zeros({2}), torch::zeros({2})); }, "(B, T)"));
  EXPECT_TRUE(refuses([] { CalendarEmbedding(torch::zeros({4, 1}), 2); }, "lon (X,)"));
  EXPECT_TRUE(refuses([] { CalendarEmbedding(torch::zeros({4}), 0); }, "embed_channels"));
}

}  // namespace
}  // namespace halcyon::test
