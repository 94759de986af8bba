// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/healda.h"

#include "halcyon/base/error.h"
#include "halcyon/sphere/healpix.h"
#include "tests/model/small_healda.h"
#include "tests/nn/golden_module.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::test {
namespace {

HealDAConfig tiny_config(const Golden& g) {
  auto config = g.config;
  config.erase("max_seqlen_k");
  config.erase("batch");
  return HealDAConfig::from_json(config);
}

ObsContext context(const Named& in) {
  return ObsContext(in.at("obs"), in.at("float_metadata"), in.at("obs_type"), in.at("channel"),
                    in.at("platform"), in.at("cu_seqlens_k"), 9,
                    PixelGroupMap{in.at("program_ptr"), in.at("program_pixels")});
}

at::Tensor forward(HealDA& model, const Named& in) {
  return model->forward(in.at("x"), in.at("t"), in.at("second_of_day"), in.at("day_of_year"),
                        context(in));
}

TEST(HealDA, Golden) {
  HALCYON_NEEDS_SHARED();
  const auto g = golden("healda/healda_tiny");
  HealDA model(tiny_config(g));
  check_golden(
      g, *model,
      [&](const Named& in) {
        return Named{{"y", forward(model, in)}};
      },
      kModelGolden);
  const auto in = g.under("in.");
  const auto packed =
      prepare_obs_context(in.at("unsorted.obs"), in.at("unsorted.float_metadata"),
                          in.at("unsorted.obs_type"), in.at("unsorted.channel"),
                          in.at("unsorted.platform"), in.at("unsorted.flat_idx"), 2 * 3 * 48);
  EXPECT_TRUE(near(
      model->forward(in.at("x"), in.at("t"), in.at("second_of_day"), in.at("day_of_year"), packed),
      g.at("out.y"), 1e-4));
  model->to(torch::kDouble);
  Named wide;
  for (const auto& [name, x] : in) wide[name] = x.is_floating_point() ? x.to(at::kDouble) : x;
  EXPECT_TRUE(near(forward(model, wide), g.at("out.y"), 1e-4));
}

TEST(HealDA, ProductionShape) {
  HealDA model(HealDAConfig{}, nn::Parameters::placeholders);
  int64_t count = 0;
  for (const auto& entry : model->named_parameters()) {
    count += entry.value().numel();
    EXPECT_LE(entry.value().storage().nbytes(), sizeof(float)) << entry.key();
  }
  EXPECT_EQ(count, 1'506'070'474);
  int64_t block = 0;
  for (const auto& p : model->dit()->blocks()[31]->parameters()) block += p.numel();
  EXPECT_EQ(block, 46'445'632);
  const auto p = model->named_parameters();
  const std::vector<std::pair<std::string, std::vector<int64_t>>> some{
      {"obs_tokenizer.embed_table.weight", {1024, 4}},
      {"obs_tokenizer.channel_embedding.weight", {1024, 16}},
      {"obs_tokenizer.platform_embedding.weight", {1024, 8}},
      {"obs_tokenizer.cond_mlp.0.weight", {64, 78}},
      {"obs_tokenizer.cond_mlp.3.weight", {64, 64}},
      {"dit.tokenizer.pos_embed", {12288, 1536}},
      {"dit.tokenizer.conv.weight", {1536, 2, 2, 2}},
      {"dit.detokenizer.adaptive_modulation.1.weight", {3072, 128}},
      {"dit.detokenizer.conv_t.weight", {1536, 74, 2, 2}},
      {"dit.conditioning_embedder.map_layer0.weight", {128, 128}},
      {"dit.blocks.31.attention.attn_op.qkv.weight", {4608, 1536}},
      {"dit.blocks.31.norm1_modulation.modulation.1.bias", {9216}},
      {"dit.blocks.31.linear.layers.2.weight", {1536, 6144}},
      {"dit.blocks.31.temporal_attn_modulation.modulation.1.weight", {4608, 128}},
      {"dit.blocks.31.cross_attention.k_proj.weight", {64, 32}},
      {"dit.blocks.31.cross_attention.out_proj.weight", {1536, 2048}}};
  for (const auto& [key, sizes] : some) {
    ASSERT_TRUE(p.contains(key)) << key;
    EXPECT_EQ(p[key].sizes(), at::IntArrayRef(sizes)) << key;
  }
  EXPECT_EQ(p.size(), 9u + 3u + 4u + 4u + 32u * 25u);  // tokenizers, embedder, blocks
  const auto buffers = model->named_buffers();
  ASSERT_EQ(buffers.size(), 1u);
  EXPECT_EQ(buffers["dit.conditioning_embedder.map_noise.freqs"].size(0), 64);
}

struct Inputs {
  explicit Inputs(int64_t pixels_in = 192, int64_t pixels = 48, int64_t observations = 30) {
    x = torch::randn({1, 2, 2, pixels_in});
    t = torch::zeros({1});
    seconds = torch::rand({1, 2}) * 86400;
    days = torch::rand({1, 2}) * 365;
    const auto ids = torch::randint(0, 30, {observations}, torch::kInt);
    context = prepare_obs_context(
        torch::randn({observations}), torch::randn({observations, 5}), ids, ids, ids,
        torch::randint(0, 2 * pixels, {observations}, torch::kLong), 2 * pixels);
  }
  at::Tensor run(HealDA& model, const std::optional<at::Tensor>& labels = {}) const {
    return model->forward(x, t, seconds, days, context, labels);
  }
  at::Tensor x, t, seconds, days;
  ObsContext context;
};

void draw_all(HealDA& model) {
  torch::NoGradGuard no_grad;
  for (auto& p : model->parameters()) p.normal_(0, 0.2);
}

TEST(HealDA, WithoutObservationsEveryParameterHasAGradient) {
  HealDA model(small_healda());
  const Inputs in(192, 48, 0);
  in.run(model).sum().backward();
  for (const auto& entry : model->named_parameters()) {
    ASSERT_TRUE(entry.value().grad().defined()) << entry.key();
    EXPECT_TRUE(entry.value().grad().isfinite().all().item<bool>()) << entry.key();
  }
  const auto p = model->named_parameters();
  EXPECT_EQ(p["obs_tokenizer.embed_table.weight"].grad().abs().sum().item<double>(), 0.0);
}

TEST(HealDA, PreparedForInferenceComputesTheSame) {
  torch::manual_seed(8);
  HealDA model(small_healda());
  draw_all(model);
  const Inputs in;
  const torch::NoGradGuard no_grad;
  model->eval();
  const auto expected = in.run(model);
  const auto state = model->named_parameters().size();
  model->prepare_inference();
  EXPECT_TRUE(near(in.run(model), expected, 1e-6));
  EXPECT_EQ(model->named_parameters().size(), state);
  auto other = in;
  other.t = torch::ones({1});
  EXPECT_THROW(other.run(model), Error);
  // the modulations are those of the call, not computed anew
  model->named_parameters()["dit.blocks.0.norm1_modulation.modulation.1.bias"].add_(1);
  EXPECT_TRUE(near(in.run(model), expected, 1e-6));
  model->train();
  model->eval();
  EXPECT_FALSE(near(in.run(model), expected, 1e-3));

  auto config = small_healda();
  config.condition_dim = 3;
  HealDA labelled(config);
  try {
    labelled->prepare_inference();
    ADD_FAILURE() << "no Error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::unsupported);
  }
}

TEST(HealDA, RegionNeedsNoMoreThanItsPixels) {
  torch::manual_seed(9);
  auto config = small_healda();
  config.region = std::vector<int64_t>{3, 4, 20, 21, 22};
  HealDA model(config);
  EXPECT_EQ(model->pixels_in(), 20);
  EXPECT_EQ(model->named_parameters()["dit.tokenizer.pos_embed"].sizes(), at::IntArrayRef({5, 16}));
  draw_all(model);
  const Inputs in(20, 5, 12);
  EXPECT_EQ(in.run(model).sizes(), at::IntArrayRef({1, 3, 2, 20}));

  // the region that is the whole sphere is the global model, bit for bit
  auto whole = small_healda();
  whole.region.emplace();
  for (int64_t i = 0; i < 48; ++i) whole.region->push_back(i);
  HealDA sphere(small_healda()), all(whole);
  draw_all(sphere);
  Named state;
  for (const auto& entry : sphere->named_parameters()) state.emplace(entry.key(), entry.value());
  for (const auto& entry : sphere->named_buffers()) state.emplace(entry.key(), entry.value());
  ASSERT_TRUE(set_state(*all, state));
  sphere->eval();
  all->eval();
  const Inputs global;
  EXPECT_TRUE(identical(global.run(sphere), global.run(all)));
}

TEST(HealDA, DtypesAndModes) {
  HealDA model(small_healda());
  draw_all(model);
  model->eval();
  Inputs in;
  const auto y = in.run(model);
  EXPECT_TRUE(identical(in.run(model), y));
  model->train();
  EXPECT_TRUE(identical(in.run(model), y));  // no drop path in the first four blocks
  model->to(torch::kBFloat16);
  auto low = in;
  low.x = in.x.to(at::kBFloat16);
  low.context = in.context.to(at::kBFloat16);
  EXPECT_TRUE(near(low.run(model), y, 0.06));
}

TEST(HealDA, DropPathAfterTheFirstBlocks) {
  auto config = small_healda();
  config.drop_path_zero_first_n_blocks = 1;
  config.drop_path = 0.5;
  HealDA model(config);
  draw_all(model);
  const Inputs in;
  bool differs = false;
  const auto y = in.run(model);
  for (int i = 0; i < 20 && !differs; ++i) differs = !near(in.run(model), y, 1e-5);
  EXPECT_TRUE(differs);
}

TEST(HealDA, Labels) {
  auto config = small_healda();
  config.condition_dim = 3;
  HealDA model(config);
  draw_all(model);
  const Inputs in;
  const auto y = in.run(model, torch::zeros({1, 3}));
  EXPECT_FALSE(near(in.run(model, torch::ones({1, 3})), y, 1e-4));
  EXPECT_TRUE(refuses([&] { in.run(model); }, "class_labels (1, 3), got none"));
  EXPECT_TRUE(refuses([&] { in.run(model, torch::zeros({1, 4})); }, "class_labels (1, 3)"));
}

TEST(HealDA, RefusesInOrder) {
  HealDA model(small_healda());
  Inputs in;
  const auto refused = [&](const std::string& part, auto&& spoil) {
    spoil();
    return refuses([&] { in.run(model, torch::zeros({1, 1})); }, part);
  };
  // each fault hides the ones mended after it
  EXPECT_TRUE(refused("x (B, C, T, X)", [&] {
    in.x = torch::zeros({3, 3, 3});
    in.t = torch::zeros({9});
    in.seconds = in.days = torch::zeros({9});
    in.context.cu_seqlens_k = torch::zeros({4}, torch::kInt);
  }));
  EXPECT_TRUE(refused("2 channels", [&] { in.x = torch::zeros({1, 3, 3, 7}); }));
  EXPECT_TRUE(refused("2 frames", [&] { in.x = torch::zeros({1, 2, 3, 7}); }));
  EXPECT_TRUE(refused("192 pixels", [&] { in.x = torch::zeros({1, 2, 2, 7}); }));
  EXPECT_TRUE(refused("t (1,)", [&] { in.x = torch::zeros({1, 2, 2, 192}); }));
  EXPECT_TRUE(refused("second_of_day (1, 2)", [&] { in.t = torch::zeros({1}); }));
  EXPECT_TRUE(refused("day_of_year (1, 2)", [&] { in.seconds = torch::zeros({1, 2}); }));
  EXPECT_TRUE(refused("B * T * X + 1 = 97", [&] { in.days = torch::zeros({1, 2}); }));
  EXPECT_TRUE(
      refused("no class_labels with condition_dim 0", [&] { in.context = Inputs().context; }));
}

TEST(HealDA, RefusesConfigurations) {
  const auto with = [](auto&& change) {
    auto config = small_healda();
    change(config);
    return [config] { HealDA{config}; };
  };
  EXPECT_TRUE(refuses(with([](auto& c) { c.level_model = 3; }), "level_model <= level_in"));
  EXPECT_TRUE(refuses(with([](auto& c) { c.num_heads = 3; }), "divisible by num_heads"));
  EXPECT_TRUE(refuses(with([](auto& c) { c.time_length = 101; }), "max_seq_len = 100, got 101"));
  EXPECT_TRUE(refuses(with([](auto& c) { c.qk_norm_type = "L2"; }), "got \"L2\""));
  EXPECT_TRUE(refuses(with([](auto& c) { c.num_layers = -1; }), "num_layers"));
  EXPECT_TRUE(refuses(with([](auto& c) { c.region = std::vector<int64_t>{5, 4}; }), "expected"));
  EXPECT_TRUE(refuses(with([](auto& c) { c.region = std::vector<int64_t>{48}; }), "expected"));
  EXPECT_TRUE(refuses(with([](auto& c) {
                        c.is_causal = false;
                        c.temporal_causal_window = 2;
                      }),
                      "is_causal with causal_window"));
}

}  // namespace
}  // namespace halcyon::test
