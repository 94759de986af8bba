// SPDX-License-Identifier: Apache-2.0
// From fields and observations to tokens and back.
#include "halcyon/nn/detokenizer.h"
#include "halcyon/nn/obs_tokenizer.h"
#include "halcyon/nn/parameters.h"
#include "halcyon/nn/tokenizer.h"
#include "halcyon/sphere/healpix.h"
#include "tests/nn/golden_module.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"
#include "tests/support/paths.h"

namespace halcyon::test {
namespace {

HEALPixPatchTokenizerOptions tokenizer_options(const nlohmann::json& c) {
  return {c["in_channels"],  c["hidden_size"],        c["level_fine"],
          c["level_coarse"], c["separate_time_axis"], std::nullopt};
}

HEALPixPatchDetokenizerOptions detokenizer_options(const nlohmann::json& c) {
  return {c["hidden_size"], c["out_channels"], c["level_coarse"],
          c["level_fine"],  c["time_length"],  c["condition_dim"].get<int64_t>(),
          std::nullopt};
}

TEST(Tokenizer, Goldens) {
  HALCYON_NEEDS_SHARED();
  for (const std::string name : {"2to1", "3to1"}) {
    const auto g = golden("healda/hpx_tokenizer_" + name);
    HEALPixPatchTokenizer tokenizer(tokenizer_options(g.config));
    EXPECT_TRUE(near(tokenizer->grid().lon(), g.at("out.lon"), 1e-6));
    check_golden(g, *tokenizer, [&](const Named& in) {
      return Named{
          {"y", tokenizer->forward(in.at("x"), in.at("second_of_day"), in.at("day_of_year"))}};
    });
    CalendarEmbedding calendar(g.at("out.lon"), g.config["hidden_size"].get<int64_t>() / 4);
    EXPECT_TRUE(near(calendar->forward(g.at("in.day_of_year"), g.at("in.second_of_day")),
                     g.at("out.calendar"), kLayer));
  }
}

TEST(Detokenizer, Goldens) {
  HALCYON_NEEDS_SHARED();
  for (const std::string name : {"1to2", "1to3"}) {
    const auto g = golden("healda/hpx_detokenizer_" + name);
    HEALPixPatchDetokenizer detokenizer(detokenizer_options(g.config));
    check_golden(g, *detokenizer, [&](const Named& in) {
      return Named{{"y", detokenizer->forward(in.at("x"), in.at("c"))}};
    });
    const Bf16Autocast autocast;
    EXPECT_TRUE(near(detokenizer->forward(g.at("in.x"), g.at("in.c")), g.at("out.y"), kBf16));
  }
}

// Against torch's convolutions on the twelve faces.
TEST(Tokenizer, IsTheConvolution) {
  HEALPixPatchTokenizer tokenizer(HEALPixPatchTokenizerOptions{3, 8, 3, 1, true, {}});
  const auto p = tokenizer->named_parameters();
  const auto x = torch::randn({2, 3, 2, 768}), zeros = torch::zeros({2, 2});
  const auto faces = x.view({2, 3, 2, 12, 8, 8}).permute({0, 2, 3, 1, 4, 5}).reshape({48, 3, 8, 8});
  const auto conv = torch::conv2d(faces, p["conv.weight"], p["conv.bias"], 4)
                        .view({2, 2, 12, 8, 2, 2})
                        .permute({0, 1, 2, 4, 5, 3})
                        .reshape({2, 2, 48, 8});
  CalendarEmbedding calendar(tokenizer->grid().lon().to(at::kFloat), 2);
  const auto expected = conv + calendar->channels_last(zeros, zeros) + p["pos_embed"];
  EXPECT_TRUE(near(tokenizer->forward(x, zeros, zeros), expected, kLayer));
}

TEST(Detokenizer, IsTheTransposedConvolution) {
  HEALPixPatchDetokenizer detokenizer(HEALPixPatchDetokenizerOptions{8, 3, 1, 3, 1, {}, {}});
  const auto p = detokenizer->named_parameters();
  EXPECT_EQ(p["adaptive_modulation.1.weight"].sizes(), at::IntArrayRef({16, 8}));
  EXPECT_EQ(p["adaptive_modulation.1.weight"].abs().max().item<float>(), 0.0f);
  const auto x = torch::randn({2, 2, 48, 8});
  const auto normed = torch::layer_norm(x, {8}, {}, {}, 1e-6);
  const auto faces = normed.view({48, 2, 2, 8}).permute({0, 3, 1, 2});
  const auto expected = torch::conv_transpose2d(faces, p["conv_t.weight"], p["conv_t.bias"], 4)
                            .view({2, 2, 12, 3, 8, 8})
                            .permute({0, 3, 1, 2, 4, 5})
                            .reshape({2, 3, 2, 768});
  EXPECT_TRUE(near(detokenizer->forward(x, torch::randn({2, 8})), expected, kLayer));
}

TEST(PatchGrid, ScatterInvertsGather) {
  const auto region = Region::of_pixels(1, std::vector<int64_t>{0, 3, 5, 17, 40, 47});
  for (const auto& grid : {PatchGrid(3, 1), PatchGrid(3, 1, region), PatchGrid(2, 2),
                           PatchGrid(1, 1, region), PatchGrid(1, 0, Region::global(0))}) {
    const auto x = torch::randn({2, 3, 2, grid.fine_size()});
    const auto patches = grid.gather(x);
    EXPECT_EQ(patches.sizes(),
              at::IntArrayRef({2, 2, grid.coarse_size(), 3 * grid.patch() * grid.patch()}));
    EXPECT_TRUE(identical(grid.scatter(patches), x));
  }
}

// A region's tokens and fields are those of the sphere on the pixels that both have.
TEST(Tokenizer, RegionAgreesWithTheSphere) {
  const auto region = Region::of_pixels(2, std::vector<int64_t>{1, 2, 17, 18, 19, 64, 100, 191});
  const auto fine = region.refined(2).pixels();
  HEALPixPatchTokenizerOptions options{2, 8, 4, 2, true, std::nullopt};
  HEALPixPatchTokenizer sphere(options);
  options.region = region;
  HEALPixPatchTokenizer part(options);
  Named state;
  for (const auto& entry : sphere->named_parameters()) state.emplace(entry.key(), entry.value());
  state["pos_embed"] = state["pos_embed"].index_select(0, region.pixels());
  ASSERT_TRUE(set_state(*part, state));
  const auto x = torch::randn({1, 2, 3, healpix::npix(4)});
  const auto seconds = torch::tensor({{0.0f, 21600.0f, 80000.0f}}),
             days = torch::rand({1, 3}) * 365;
  const auto tokens = sphere->forward(x, seconds, days);
  EXPECT_TRUE(near(part->forward(x.index_select(3, fine), seconds, days),
                   tokens.index_select(2, region.pixels()), 1e-6));

  HEALPixPatchDetokenizerOptions back{8, 3, 2, 4, 1, {}, std::nullopt};
  HEALPixPatchDetokenizer sphere_out(back);
  back.region = region;
  HEALPixPatchDetokenizer part_out(back);
  state.clear();
  for (const auto& entry : sphere_out->named_parameters())
    state.emplace(entry.key(), entry.value());
  ASSERT_TRUE(set_state(*part_out, state));
  const auto c = torch::randn({1, 8});
  EXPECT_TRUE(near(part_out->forward(tokens.index_select(2, region.pixels()), c),
                   sphere_out->forward(tokens, c).index_select(3, fine), 1e-6));
}

TEST(Tokenizer, GradientsOnSphereAndRegion) {
  const auto region = Region::of_pixels(0, std::vector<int64_t>{2, 7});
  for (const auto& where : {std::optional<Region>{}, std::optional(region)}) {
    HEALPixPatchTokenizer tokenizer(HEALPixPatchTokenizerOptions{2, 4, 1, 0, false, where});
    const auto x = leaf({1, 2, 2, tokenizer->grid().fine_size()});
    const auto times = torch::rand({1, 2}, torch::kDouble) * 300;
    EXPECT_TRUE(gradcheck([&] { return std::vector{tokenizer->forward(x, times, times)}; },
                          double_leaves(*tokenizer, {x})));
    HEALPixPatchDetokenizer detokenizer(HEALPixPatchDetokenizerOptions{4, 2, 0, 1, 2, 3, where});
    const auto tokens = leaf({1, 2 * tokenizer->grid().coarse_size(), 4}), c = leaf({1, 3});
    EXPECT_TRUE(gradcheck([&] { return std::vector{detokenizer->forward(tokens, c)}; },
                          double_leaves(*detokenizer, {tokens, c})));
  }
}

TEST(Tokenizer, Bf16ModuleAndAutocast) {
  HEALPixPatchTokenizer tokenizer(HEALPixPatchTokenizerOptions{2, 8, 2, 1, true, {}});
  const auto x = torch::randn({1, 2, 2, 192}), times = torch::rand({1, 2}) * 300;
  const auto y = tokenizer->forward(x, times, times);
  {
    const Bf16Autocast autocast;
    const auto mixed = tokenizer->forward(x, times, times);
    EXPECT_EQ(mixed.scalar_type(), at::kFloat);
    EXPECT_TRUE(near(mixed, y, kBf16));
  }
  tokenizer->to(torch::kBFloat16);
  const auto low = tokenizer->forward(x.to(at::kBFloat16), times, times);
  EXPECT_EQ(low.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(near(low, y, kBf16));
}

// Without gradients the frames come one at a time.
TEST(Tokenizer, FramesOneAtATime) {
  for (const bool separate : {true, false}) {
    HEALPixPatchTokenizer tokenizer(HEALPixPatchTokenizerOptions{3, 8, 3, 1, separate, {}});
    const auto x = torch::randn({2, 3, 5, 768}), second = torch::rand({2, 5}) * 86400,
               day = torch::rand({2, 5}) * 365;
    const auto together = tokenizer->forward(x, second, day);
    const torch::NoGradGuard no_grad;
    EXPECT_TRUE(near(tokenizer->forward(x, second, day), together, 1e-6));
  }
}

TEST(Tokenizer, Refuses) {
  EXPECT_TRUE(refuses(
      [] {
        HEALPixPatchTokenizer(HEALPixPatchTokenizerOptions{2, 6, 2, 1});
      },
      "divisible by 4, got 6"));
  EXPECT_TRUE(refuses(
      [] {
        HEALPixPatchTokenizer(HEALPixPatchTokenizerOptions{2, 8, 1, 2});
      },
      "level_coarse <= level_fine"));
  HEALPixPatchTokenizer tokenizer(HEALPixPatchTokenizerOptions{2, 8, 2, 1});
  const auto x = torch::zeros({1, 2, 3, 192}), times = torch::zeros({1, 3});
  EXPECT_TRUE(refuses([&] { tokenizer->forward(x[0], times, times); }, "(B, C, T, X)"));
  EXPECT_TRUE(refuses([&] { tokenizer->forward(x.narrow(1, 0, 1), times, times); }, "2 channels"));
  EXPECT_TRUE(refuses([&] { tokenizer->forward(x.narrow(3, 0, 48), times, times); }, "192 pixels"));
  EXPECT_TRUE(refuses([&] { tokenizer->forward(x, times.narrow(1, 0, 2), times); }, "(1, 3)"));
  EXPECT_TRUE(refuses([&] { tokenizer->tokenize(x, {}); }, "tokenizer_kwargs"));
  HEALPixPatchDetokenizer detokenizer(HEALPixPatchDetokenizerOptions{8, 3, 1, 2, 2, 5});
  const auto h = torch::zeros({1, 2, 48, 8}), c = torch::zeros({1, 5});
  EXPECT_TRUE(refuses([&] { detokenizer->forward(h, torch::zeros({1, 8})); }, "c (1, 5)"));
  EXPECT_TRUE(refuses([&] { detokenizer->forward(h.narrow(2, 0, 12), c); }, "48 pixels"));
  EXPECT_TRUE(refuses(
      [&] {
        detokenizer->forward(torch::zeros({1, 48, 8}), c);
      },
      "2 frames of 48 pixels"));
  EXPECT_TRUE(refuses([&] { detokenizer->forward(torch::zeros({1, 2, 48, 4}), c); }, "width 8"));
}

TEST(ObsTokenizer, Golden) {
  HALCYON_NEEDS_SHARED();
  const auto g = golden("healda/obs_tokenizer_film_platform");
  ObsTokenizerFiLMOptions options;
  options.meta_dim = g.config["meta_dim"];
  options.out_dim = g.config["out_dim"];
  options.obs_type_embed_dim = g.config["obs_type_embed_dim"];
  options.channel_embed_dim = g.config["channel_embed_dim"].get<int64_t>();
  options.platform_embed_dim = g.config["platform_embed_dim"].get<int64_t>();
  options.hidden_dim = g.config["hidden_dim"].get<int64_t>();
  ObsTokenizerFiLM tokenizer(options);
  const auto forward = [&](const Named& in) {
    return Named{{"y", tokenizer->forward(in.at("obs"), in.at("float_metadata"), in.at("obs_type"),
                                          in.at("channel"), in.at("platform"))}};
  };
  check_golden(g, *tokenizer, forward);
  const Bf16Autocast autocast;
  EXPECT_TRUE(near(forward(g.under("in.")).at("y"), g.at("out.y"), kBf16));
}

TEST(ObsTokenizer, WidthsAndDefaults) {
  ObsTokenizerFiLMOptions options;
  options.meta_dim = 5;
  options.out_dim = 6;
  ObsTokenizerFiLM tokenizer(options);  // no platform: hidden 12, cond 5 + 4 + 4
  const auto p = tokenizer->named_parameters();
  EXPECT_EQ(p.size(), 8u);
  EXPECT_EQ(p["embed_table.weight"].sizes(), at::IntArrayRef({1024, 4}));
  EXPECT_EQ(p["channel_embedding.weight"].sizes(), at::IntArrayRef({1024, 4}));
  EXPECT_EQ(p["cond_mlp.0.weight"].sizes(), at::IntArrayRef({12, 13}));
  EXPECT_EQ(p["cond_mlp.1.bias"].sizes(), at::IntArrayRef({12}));
  EXPECT_EQ(p["cond_mlp.3.weight"].sizes(), at::IntArrayRef({12, 12}));
  options.out_dim = 80;
  EXPECT_EQ(ObsTokenizerFiLM(options)->named_parameters()["cond_mlp.1.bias"].size(0), 80);
}

TEST(ObsTokenizer, GradientsAndNoObservation) {
  torch::manual_seed(4);
  ObsTokenizerFiLMOptions options;
  options.meta_dim = 3;
  options.out_dim = 2;
  options.n_embed = 5;
  options.platform_embed_dim = 2;
  ObsTokenizerFiLM tokenizer(options);
  const auto obs = leaf({4}), metadata = leaf({4, 3});
  const auto types = torch::tensor({0, 4, 2, 2}, torch::kInt);
  const auto ids = torch::tensor({7, 1, 1023, 7}, torch::kLong);
  EXPECT_TRUE(
      gradcheck([&] { return std::vector{tokenizer->forward(obs, metadata, types, ids, ids)}; },
                double_leaves(*tokenizer, {obs, metadata})));
  tokenizer->zero_grad();
  const auto none = torch::zeros({0}, torch::kLong);
  tokenizer->forward(obs.narrow(0, 0, 0), metadata.narrow(0, 0, 0), none, none, none)
      .sum()
      .backward();
  for (const auto& entry : tokenizer->named_parameters()) {
    ASSERT_TRUE(entry.value().grad().defined()) << entry.key();
    EXPECT_EQ(entry.value().grad().abs().sum().item<double>(), 0.0) << entry.key();
  }
}

TEST(ObsTokenizer, Refuses) {
  ObsTokenizerFiLMOptions options;
  options.meta_dim = 3;
  options.out_dim = 2;
  options.platform_embed_dim = 2;
  options.hidden_dim = 0;
  EXPECT_TRUE(refuses([&] { ObsTokenizerFiLM{options}; }, "hidden_dim of at least 1, got 0"));
  options.hidden_dim.reset();
  ObsTokenizerFiLM tokenizer(options);
  const auto obs = torch::zeros({4}), metadata = torch::zeros({4, 3});
  const auto ids = torch::zeros({4}, torch::kInt);
  const auto forward = [&](const at::Tensor& o, const at::Tensor& m, const at::Tensor& t,
                           const at::Tensor& c, const std::optional<at::Tensor>& p) {
    return [=, &tokenizer] { tokenizer->forward(o, m, t, c, p); };
  };
  EXPECT_TRUE(refuses(forward(metadata, metadata, ids, ids, ids), "obs (N,)"));
  EXPECT_TRUE(refuses(forward(obs, metadata.narrow(1, 0, 2), ids, ids, ids), "(4, 3)"));
  EXPECT_TRUE(refuses(forward(obs, metadata, ids.narrow(0, 0, 3), ids, ids), "obs_type (4,)"));
  EXPECT_TRUE(refuses(forward(obs, metadata, ids, ids.view({2, 2}), ids), "channel_ids (4,)"));
  EXPECT_TRUE(refuses(forward(obs, metadata, ids, ids, std::nullopt), "platform_ids, got none"));
  EXPECT_TRUE(refuses(forward(obs, metadata, ids, ids, ids.narrow(0, 0, 1)), "platform_ids (4,)"));
  EXPECT_TRUE(refuses(forward(obs, metadata, ids + 5000, ids, ids), "expected"));
}

TEST(Parameters, Placeholders) {
  nn::Linear layer(nullptr);
  {
    const nn::ParametersGuard guard(nn::Parameters::placeholders);
    layer = nn::Linear(300, 200);
  }
  EXPECT_EQ(layer->weight.numel(), 60000);
  EXPECT_EQ(layer->weight.storage().nbytes(), sizeof(float));
  EXPECT_TRUE(nn::is_placeholder(layer->weight));
  layer->named_parameters()["weight"].set_data(torch::ones({200, 300}));
  EXPECT_FALSE(nn::is_placeholder(layer->weight));
  EXPECT_EQ(layer->weight.sum().item<float>(), 60000.0f);
  EXPECT_TRUE(layer->weight.requires_grad());
  EXPECT_EQ(nn::parameters_mode(), nn::Parameters::initialised);
  HEALPixPatchDetokenizer detokenizer(nullptr);
  {
    const nn::ParametersGuard guard(nn::Parameters::placeholders);
    detokenizer = HEALPixPatchDetokenizer(HEALPixPatchDetokenizerOptions{8, 3, 1, 2});
  }
  EXPECT_TRUE(refuses(
      [&] {
        detokenizer->forward(torch::zeros({1, 1, 48, 8}), torch::zeros({1, 8}));
      },
      "expected weights"));
}

}  // namespace
}  // namespace halcyon::test
