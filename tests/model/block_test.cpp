// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/block.h"

#include "halcyon/nn/self_attention.h"
#include "halcyon/ops/adaln/adaln.h"
#include "halcyon/ops/rope.h"
#include "tests/nn/golden_module.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"
#include "tests/support/paths.h"

namespace halcyon::test {
namespace {

VideoDiTBlockOptions options_of(const nlohmann::json& c) {
  VideoDiTBlockOptions options;
  options.hidden_size = c["hidden_size"];
  options.num_heads = c["num_heads"];
  options.condition_embed_dim = c["condition_embed_dim"];
  options.temporal_attention = c.value("temporal_attention", false);
  options.is_causal = c.value("is_causal", false);
  if (c.contains("attn_kwargs")) {
    options.attn_kwargs = {c["attn_kwargs"]["qk_norm_type"].get<std::string>(),
                           c["attn_kwargs"]["qk_norm_affine"].get<bool>()};
  }
  if (c.contains("cross_attention")) {
    const auto& x = c["cross_attention"];
    options.cross_attention =
        pixel_cross_attention({x["hidden_size"], x["token_dim"], x["n_q_heads"], x["n_kv_heads"],
                               x["d_head"], x["use_proj_bias"]});
  }
  return options;
}

at::Tensor forward(VideoDiTBlock& block, const Named& in) {
  std::any cross;
  if (in.contains("tokens"))
    cross = PixelCrossAttentionKwargs{in.at("tokens"), in.at("cu_seqlens_k"), 0};
  RopeTables tables;
  if (in.contains("rope_cos")) tables = {in.at("rope_cos"), in.at("rope_sin")};
  return block->forward(in.at("hidden_states"), in.at("c"), {}, cross, tables);
}

TEST(Block, Goldens) {
  HALCYON_NEEDS_SHARED();
  for (const std::string name : {"plain", "temporal_only", "full"}) {
    SCOPED_TRACE(name);
    const auto g = golden("healda/block_" + name);
    VideoDiTBlock block(options_of(g.config));
    check_golden(g, *block, [&](const Named& in) { return Named{{"y", forward(block, in)}}; });
  }
}

VideoDiTBlockOptions small() {
  VideoDiTBlockOptions options;
  options.hidden_size = 8;
  options.num_heads = 2;
  options.condition_embed_dim = 3;
  return options;
}

TEST(Block, GradientsOfAllParts) {
  torch::manual_seed(1);
  auto options = small();
  options.mlp_ratio = 1.5;
  options.temporal_attention = true;
  options.is_causal = true;
  options.temporal_kwargs = {false, 2};
  options.attn_kwargs = {"LayerNorm", true};
  options.cross_attention = pixel_cross_attention({8, 4, 16, 1, 2, true});
  VideoDiTBlock block(options);
  const auto h = leaf({1, 3, 2, 8}), c = leaf({1, 3}), tokens = leaf({5, 4});
  const auto cu = torch::tensor({0, 1, 1, 4, 4, 4, 5}, torch::kInt);
  const auto [cos, sin] = rope_tables(4, 3);
  EXPECT_TRUE(gradcheck(
      [&, &cos = cos, &sin = sin] {
        return std::vector{
            block->forward(h, c, {}, PixelCrossAttentionKwargs{tokens, cu, 3}, {cos, sin})};
      },
      double_leaves(*block, {h, c, tokens}), 1e-6, 3));
}

// Spatial attention before cross-attention before temporal attention before the MLP.
TEST(Block, OrderOfBranches) {
  static std::string order;
  struct Spatial : SpatialAttentionBase {
    at::Tensor attend(const at::Tensor& x, const SpatialAttentionKwargs&) override {
      order += 's';
      return x;
    }
  };
  struct Cross : CrossAttentionModuleBase {
    at::Tensor attend(const at::Tensor& x, const std::any& kwargs) override {
      order += std::any_cast<std::string>(kwargs);
      return x;
    }
  };
  register_spatial_attention("test-order",
                             [](auto, const auto&) { return std::make_shared<Spatial>(); });
  auto options = small();
  options.attention_backend = "test-order:1";
  options.cross_attention = [] { return std::make_shared<Cross>(); };
  VideoDiTBlock block(options);
  block->forward(torch::zeros({1, 2, 3, 8}), torch::zeros({1, 3}), {}, std::string("c"));
  EXPECT_EQ(order, "sc");
}

// With every gate at zero a block hands its input through: adaln_zero_init.
TEST(Block, StartsAsIdentity) {
  auto options = small();
  options.temporal_attention = true;
  options.use_rope = false;
  VideoDiTBlock zero(options);
  const auto h = torch::randn({2, 2, 3, 8}), c = torch::randn({2, 3});
  EXPECT_TRUE(identical(zero->forward(h, c), h));
  options.adaln_zero_init = false;
  EXPECT_FALSE(near(VideoDiTBlock(options)->forward(h, c), h, 1e-3));
}

TEST(Block, MlpKeys) {
  const auto keys = [](double rate, bool final_dropout) {
    auto options = small();
    options.mlp_drop_rate = rate;
    options.final_mlp_dropout = final_dropout;
    VideoDiTBlock block(options);
    std::string found;
    for (const auto& entry : block->named_parameters()) {
      if (entry.key().starts_with("linear.layers.") && entry.key().ends_with("weight"))
        found += entry.key().substr(14, 1);
    }
    return found + "/" + std::to_string(block->named_modules()["linear.layers"]->children().size());
  };
  EXPECT_EQ(keys(0, true), "02/3");
  EXPECT_EQ(keys(0.1, true), "03/5");
  EXPECT_EQ(keys(0.1, false), "03/4");
}

TEST(Block, MlpDropout) {
  torch::manual_seed(6);
  auto options = small();
  options.mlp_drop_rate = 0.5;
  options.adaln_zero_init = false;
  VideoDiTBlock block(options);
  const auto h = torch::randn({1, 1, 3, 8}), c = torch::randn({1, 3});
  EXPECT_FALSE(near(block->forward(h, c), block->forward(h, c), 1e-3));
  block->eval();
  EXPECT_TRUE(identical(block->forward(h, c), block->forward(h, c)));
}

TEST(DropPath, RatesAndScale) {
  torch::manual_seed(11);
  const auto gate = torch::ones({20000, 3});
  EXPECT_TRUE(identical(drop_path(gate, 0.3, false), gate));
  EXPECT_TRUE(identical(drop_path(gate, 0.0, true), gate));
  const auto kept = drop_path(gate, 0.3, true);
  EXPECT_TRUE(identical(kept.select(1, 0), kept.select(1, 2)));  // whole samples
  EXPECT_NEAR(kept.select(1, 0).eq(0).to(at::kFloat).mean().item<double>(), 0.3, 0.015);
  EXPECT_FLOAT_EQ(kept.max().item<float>(), 1 / 0.7f);
  EXPECT_EQ(drop_path(gate, 1.0, true).abs().max().item<float>(), 0.0f);
}

// One draw per sample and branch, in the order of the branches.
TEST(DropPath, OrderOfDraws) {
  auto options = small();
  options.drop_path = 0.5;
  options.adaln_zero_init = false;
  VideoDiTBlock block(options);
  const auto h = torch::randn({6, 1, 3, 8}), c = torch::randn({6, 3});
  torch::manual_seed(12);
  const auto y = block->forward(h, c);
  torch::manual_seed(12);
  const auto first = torch::empty({6, 1}).bernoulli_(0.5) * 2;
  const auto second = torch::empty({6, 1}).bernoulli_(0.5) * 2;
  // the same by hand: scale the gates, then run without drop path
  auto adaln = block->modulations()[0];
  const auto m = adaln->modulations(c);
  const auto& children = block->named_children();
  auto* attention = children["attention"]->as<SelfAttention>();
  const auto ln = [](const at::Tensor& x) { return torch::layer_norm(x, {8}, {}, {}, 1e-6); };
  auto expected =
      h +
      (m[0].gate * first).view({6, 1, 1, 8}) *
          attention->forward(modulate(ln(h), m[0].shift, m[0].scale).flatten(0, 1)).view(h.sizes());
  auto* mlp = children["linear"]->named_children()["layers"]->as<torch::nn::Sequential>();
  expected = expected + (m[1].gate * second).view({6, 1, 1, 8}) *
                            mlp->forward(modulate(ln(expected), m[1].shift, m[1].scale));
  EXPECT_TRUE(near(y, expected, 1e-5));
}

TEST(Block, Refuses) {
  auto options = small();
  VideoDiTBlock block(options);
  const auto h = torch::zeros({1, 2, 3, 8}), c = torch::zeros({1, 3});
  EXPECT_TRUE(refuses([&] { block->forward(h, torch::zeros({2, 3})); }, "c (1, 3), got (2, 3)"));
  EXPECT_TRUE(refuses([&] { block->forward(h[0], c); }, "(B, T, X, C)"));
  EXPECT_TRUE(refuses([&] { block->forward(h.narrow(3, 0, 4), c); }, "width 8"));
  options.cross_attention = pixel_cross_attention({8, 4, 16, 1, 2, true});
  EXPECT_TRUE(refuses([&] { VideoDiTBlock(options)->forward(h, c); }, "cross_attn_kwargs"));
  options.cross_attention = [] { return nullptr; };
  EXPECT_TRUE(refuses([&] { VideoDiTBlock{options}; }, "cross_attention factory"));
  options = small();
  options.attention_backend = "natten2d";
  EXPECT_TRUE(refuses([&] { VideoDiTBlock{options}; }, "got \"natten2d\""));
  options = small();
  options.layernorm_backend = "none";
  EXPECT_TRUE(refuses([&] { VideoDiTBlock{options}; }, "layernorm_backend"));
  options = small();
  options.drop_path = 1.5;
  EXPECT_TRUE(refuses([&] { VideoDiTBlock{options}; }, "drop_path between 0 and 1"));
  options = small();
  options.mlp_ratio = 0.01;
  EXPECT_TRUE(refuses([&] { VideoDiTBlock{options}; }, "mlp_ratio"));
}

}  // namespace
}  // namespace halcyon::test
