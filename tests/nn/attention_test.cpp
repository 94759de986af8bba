// SPDX-License-Identifier: Apache-2.0
// Spatial, temporal and cross-attention layers.
#include <cmath>
#include <tuple>

#include "halcyon/nn/cross_attention.h"
#include "halcyon/nn/healpix_attention.h"
#include "halcyon/nn/self_attention.h"
#include "halcyon/nn/temporal_attention.h"
#include "halcyon/ops/rope.h"
#include "tests/nn/golden_module.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"
#include "tests/support/paths.h"

namespace halcyon::test {
namespace {

TEST(SelfAttention, Goldens) {
  HALCYON_NEEDS_SHARED();
  for (const std::string name : {"nonorm", "rms_noaffine"}) {
    const auto g = golden("healda/spatial_attn_" + name);
    std::optional<std::string> norm;
    if (g.config.contains("qk_norm_type")) norm = g.config["qk_norm_type"].get<std::string>();
    SelfAttention attention(g.config["hidden_size"].get<int64_t>(),
                            g.config["num_heads"].get<int64_t>(), 0.0, 0.0, norm,
                            g.config.value("qk_norm_affine", true));
    check_golden(g, *attention, [&](const Named& in) {
      return Named{{"y", attention->forward(in.at("x"))}};
    });
    const Bf16Autocast autocast;
    const auto y = attention->forward(g.at("in.x"));
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(near(y, g.at("out.y"), kBf16));
  }
}

// Head by head and token by token, with the norms written out.
at::Tensor plain_attention(const at::Tensor& x,
                           const torch::OrderedDict<std::string, at::Tensor>& p, int64_t heads,
                           const std::function<at::Tensor(at::Tensor, char)>& norm,
                           const at::Tensor& added) {
  const int64_t width = x.size(2), d = width / heads;
  const auto qkv = torch::matmul(x, p["attn_op.qkv.weight"].t()) + p["attn_op.qkv.bias"];
  std::vector<at::Tensor> samples;
  for (int64_t n = 0; n < x.size(0); ++n) {
    std::vector<at::Tensor> outputs;
    for (int64_t h = 0; h < heads; ++h) {
      const auto part = [&](int64_t which) { return qkv[n].narrow(1, which * width + h * d, d); };
      const auto q = norm(part(0), 'q'), k = norm(part(1), 'k');
      const auto scores = torch::matmul(q, k.t()) / std::sqrt(static_cast<double>(d)) + added;
      outputs.push_back(torch::matmul(torch::softmax(scores, -1), part(2)));
    }
    samples.push_back(torch::matmul(torch::cat(outputs, 1), p["attn_op.proj.weight"].t()) +
                      p["attn_op.proj.bias"]);
  }
  return torch::stack(samples);
}

TEST(SelfAttention, AffineNormsAndMasks) {
  torch::manual_seed(1);
  for (const std::string type : {"RMSNorm", "LayerNorm"}) {
    SelfAttention attention(8, 2, 0.0, 0.0, type, true);
    const auto p = attention->named_parameters();
    EXPECT_EQ(p.size(), type == "RMSNorm" ? 6u : 8u);
    const auto x = leaf({2, 5, 8}), added = leaf({5, 5});
    const auto leaves = double_leaves(*attention, {x, added});
    const auto norm = [&](const at::Tensor& v, char which) {
      const auto key = std::string("attn_op.") + which + "_norm.";
      if (type == "RMSNorm")
        return v * torch::rsqrt(v.pow(2).mean(-1, true) + 1e-6) * p[key + "weight"];
      const auto c = v - v.mean(-1, true);
      return c * torch::rsqrt(c.pow(2).mean(-1, true) + 1e-5) * p[key + "weight"] + p[key + "bias"];
    };
    EXPECT_TRUE(near(attention->forward(x, added), plain_attention(x, p, 2, norm, added), kDouble));
    EXPECT_TRUE(gradcheck([&] { return std::vector{attention->forward(x, added)}; }, leaves));
    const auto seen = torch::ones({5, 5}, torch::kBool).tril();
    const auto hidden =
        torch::zeros({5, 5}, torch::kDouble)
            .masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
    const auto masked = plain_attention(x, p, 2, norm, hidden);
    EXPECT_TRUE(near(attention->forward(x, seen), masked, kDouble));
    SelfAttention causal(8, 2, 0.0, 0.0, type, true, true);
    causal->to(torch::kDouble);
    Named state;
    for (const auto& entry : p) state.emplace(entry.key(), entry.value());
    ASSERT_TRUE(set_state(*causal, state));
    EXPECT_TRUE(near(causal->forward(x), masked, kDouble));
    EXPECT_TRUE(refuses([&] { causal->forward(x, seen); }, "no attn_mask with is_causal"));
  }
}

TEST(SelfAttention, DropoutActsInTrainingOnly) {
  torch::manual_seed(3);
  SelfAttention attention(8, 2, 0.5, 0.0);
  SelfAttention projection(8, 2, 0.0, 0.5);
  const auto x = torch::randn({1, 6, 8});
  for (auto layer : {attention, projection}) {
    EXPECT_FALSE(near(layer->forward(x), layer->forward(x), 1e-3));
    layer->eval();
    EXPECT_TRUE(identical(layer->forward(x), layer->forward(x)));
  }
  projection->train();
  const auto zeros = projection->forward(torch::randn({20, 50, 8})).eq(0).to(at::kFloat).mean();
  EXPECT_NEAR(zeros.item<double>(), 0.5, 0.05);
}

TEST(SelfAttention, StridedEmptyBf16) {
  SelfAttention attention(8, 2, 0.0, 0.0, "RMSNorm", false);
  attention->eval();
  const auto x = torch::randn({8, 5, 3});
  EXPECT_TRUE(near(attention->forward(x.permute({2, 1, 0})),
                   attention->forward(x.permute({2, 1, 0}).contiguous()), kLayer));
  EXPECT_EQ(attention->forward(torch::zeros({0, 5, 8})).sizes(), at::IntArrayRef({0, 5, 8}));
  const auto y = attention->forward(x.permute({2, 1, 0}));
  attention->to(torch::kBFloat16);
  EXPECT_TRUE(near(attention->forward(x.permute({2, 1, 0}).to(at::kBFloat16)), y, kBf16));
}

TEST(SelfAttention, Refuses) {
  EXPECT_TRUE(refuses([] { SelfAttention(10, 4); }, "divisible by num_heads, got 10 and 4"));
  EXPECT_TRUE(refuses([] { SelfAttention(8, 0); }, "num_heads"));
  EXPECT_TRUE(refuses([] { SelfAttention(8, 2, 1.5); }, "attn_drop_rate"));
  EXPECT_TRUE(refuses([] { SelfAttention(8, 2, 0.0, 0.0, "BatchNorm"); }, "got \"BatchNorm\""));
  SelfAttention attention(8, 2);
  EXPECT_TRUE(refuses([&] { attention->forward(torch::zeros({5, 8})); }, "x (N, L, C)"));
  EXPECT_TRUE(refuses([&] { attention->forward(torch::zeros({1, 5, 7})); }, "width 8"));
  EXPECT_TRUE(refuses(
      [&] {
        attention->forward(torch::zeros({1, 5, 8}), torch::zeros({4, 5}));
      },
      "broadcastable to (1, 2, 5, 5)"));
  EXPECT_TRUE(refuses([] { make_spatial_attention("natten3d", {}); }, "timm, got \"natten3d\""));
}

TEST(SpatialAttention, BackendsByName) {
  struct Doubling : SpatialAttentionBase {
    at::Tensor attend(const at::Tensor& x, const SpatialAttentionKwargs&) override { return x * 2; }
  };
  std::string asked;
  register_spatial_attention("test-doubling", [&](std::string_view name, const auto&) {
    asked = name;
    return std::make_shared<Doubling>();
  });
  const auto made = make_spatial_attention("test-doubling:10.5", {});
  EXPECT_EQ(asked, "test-doubling:10.5");
  EXPECT_EQ(made->attend(torch::ones({1}), {}).item<float>(), 2.0f);
  EXPECT_TRUE(refuses([] { register_spatial_attention("a:b", nullptr); }, "without a colon"));
}

TEST(SpatialSelfAttention, BackendsAgree) {
  torch::manual_seed(5);
  SpatialSelfAttention manual(12, 3, 0.0, true, "manual"), fused(12, 3, 0.0, true, "sdpa"),
      automatic(12, 3);
  const auto p = manual->named_parameters();
  EXPECT_EQ(p["qkv_proj.weight"].sizes(), at::IntArrayRef({36, 12}));
  EXPECT_EQ(p["out_proj.bias"].sizes(), at::IntArrayRef({12}));
  const auto x = leaf({2, 7, 12});
  const auto leaves = double_leaves(*manual, {x});
  Named state;
  for (const auto& entry : p) state.emplace(entry.key(), entry.value());
  for (auto other : {fused, automatic}) {
    other->to(torch::kDouble);
    ASSERT_TRUE(set_state(*other, state));
    EXPECT_TRUE(near(other->forward(x), manual->forward(x), kDouble));
  }
  EXPECT_TRUE(gradcheck([&] { return std::vector{manual->forward(x)}; }, leaves));
  const auto fused_leaves = double_leaves(*fused, {x});
  EXPECT_TRUE(gradcheck([&] { return std::vector{fused->forward(x)}; }, fused_leaves));
}

TEST(SpatialSelfAttention, WrittenOut) {
  SpatialSelfAttention attention(4, 2, 0.0, false);
  EXPECT_EQ(attention->parameters().size(), 2u);
  const auto x = leaf({1, 3, 4});
  double_leaves(*attention, {});
  const auto p = attention->named_parameters();
  const auto qkv = torch::matmul(x[0], p["qkv_proj.weight"].t());
  std::vector<at::Tensor> heads;
  for (int64_t h = 0; h < 2; ++h) {
    const auto q = qkv.narrow(1, 2 * h, 2), k = qkv.narrow(1, 4 + 2 * h, 2);
    const auto weights = torch::softmax(torch::matmul(q, k.t()) / std::sqrt(2.0), -1);
    heads.push_back(torch::matmul(weights, qkv.narrow(1, 8 + 2 * h, 2)));
  }
  const auto expected = torch::matmul(torch::cat(heads, 1), p["out_proj.weight"].t());
  EXPECT_TRUE(near(attention->forward(x)[0], expected, kDouble));
}

TEST(SpatialSelfAttention, DropoutAndErrors) {
  for (const std::string backend : {"manual", "sdpa"}) {
    SpatialSelfAttention attention(4, 2, 0.5, true, backend);
    const auto x = torch::randn({1, 9, 4});
    EXPECT_FALSE(near(attention->forward(x), attention->forward(x), 1e-3)) << backend;
    attention->eval();
    EXPECT_TRUE(identical(attention->forward(x), attention->forward(x))) << backend;
  }
  EXPECT_TRUE(refuses([] { SpatialSelfAttention(10, 3); },
                      "embed_dim (10) must be divisible by num_heads (3)"));
  EXPECT_TRUE(refuses([] { SpatialSelfAttention(4, 2, 0.0, true, "flash"); }, "got \"flash\""));
  EXPECT_TRUE(refuses([] { SpatialSelfAttention(4, 2, -0.1); }, "dropout"));
  EXPECT_TRUE(refuses(
      [] {
        SpatialSelfAttention(4, 2)->forward(torch::zeros({3, 4}));
      },
      "(B, N, embed_dim)"));
}

TemporalAttentionOptions temporal_options(const nlohmann::json& config) {
  TemporalAttentionOptions options;
  options.hidden_size = config["hidden_size"];
  options.num_heads = config["num_heads"];
  options.linear_attention = config["linear_attention"];
  options.is_causal = config["is_causal"];
  if (config.contains("causal_window")) options.causal_window = config["causal_window"];
  return options;
}

TEST(TemporalAttention, Goldens) {
  HALCYON_NEEDS_SHARED();
  for (const std::string name :
       {"linear_causal_rope", "linear_causal_window2_rope", "softmax_causal_rope"}) {
    const auto g = golden("healda/temporal_" + name);
    TemporalAttention attention(temporal_options(g.config));
    check_golden(g, *attention, [&](const Named& in) {
      return Named{{"y", attention->forward(in.at("x"), in.at("rope_cos"), in.at("rope_sin"))}};
    });
    const Bf16Autocast autocast;
    EXPECT_TRUE(near(attention->forward(g.at("in.x"), g.at("in.rope_cos"), g.at("in.rope_sin")),
                     g.at("out.y"), kBf16));
  }
}

// Frame by frame over one pixel and head at a time.
TEST(TemporalAttention, WrittenOutEveryMask) {
  torch::manual_seed(2);
  const int64_t frames = 4, width = 6, heads = 3, d = 2;
  for (const bool linear : {true, false}) {
    for (const auto& [causal, window] : std::vector<std::pair<bool, std::optional<int64_t>>>{
             {false, {}}, {true, {}}, {true, 1}, {true, 2}, {true, 9}}) {
      TemporalAttention attention(
          TemporalAttentionOptions{width, heads, false, causal, linear, window});
      const auto x = leaf({2, frames, 3, width});
      const auto leaves = double_leaves(*attention, {x});
      const auto p = attention->named_parameters();
      const auto qkv = (torch::matmul(x, p["qkv.weight"].t()) + p["qkv.bias"]).detach();
      auto mixed = torch::zeros({2, frames, 3, width}, torch::kDouble);
      for (int64_t b = 0; b < 2; ++b) {
        for (int64_t pixel = 0; pixel < 3; ++pixel) {
          for (int64_t h = 0; h < heads; ++h) {
            const auto part = [&](int64_t which, int64_t t) {
              return qkv[b][t][pixel].narrow(0, which * width + h * d, d);
            };
            for (int64_t i = 0; i < frames; ++i) {
              double sum = 0;
              auto y = torch::zeros({d}, torch::kDouble);
              for (int64_t j = 0; j < frames; ++j) {
                if (causal && (j > i || (window && i - j >= *window))) continue;
                const double a = (part(0, i) * part(1, j)).sum().item<double>() / std::sqrt(2.0);
                const double w = linear ? a : std::exp(a);
                sum += w;
                y += w * part(2, j);
              }
              mixed[b][i][pixel].narrow(0, h * d, d).copy_(linear ? y : y / sum);
            }
          }
        }
      }
      const auto expected = torch::matmul(mixed, p["proj.weight"].t()) + p["proj.bias"];
      EXPECT_TRUE(near(attention->forward(x), expected, kDouble)) << linear << causal;
      EXPECT_TRUE(gradcheck([&] { return std::vector{attention->forward(x)}; }, leaves, 1e-6, 12));
    }
  }
}

TEST(TemporalAttention, Refuses) {
  TemporalAttentionOptions options{8, 2};
  options.causal_window = 2;
  EXPECT_TRUE(refuses([&] { TemporalAttention{options}; }, "is_causal with causal_window"));
  options.is_causal = true;
  options.causal_window = 0;
  EXPECT_TRUE(refuses([&] { TemporalAttention{options}; }, "causal_window of at least 1"));
  EXPECT_TRUE(refuses(
      [&] {
        TemporalAttention(TemporalAttentionOptions{6, 2});
      },
      "even head width"));
  TemporalAttention attention(TemporalAttentionOptions{8, 2});
  const auto x = torch::zeros({1, 3, 2, 8});
  at::Tensor cos, sin;
  std::tie(cos, sin) = rope_tables(4, 3);
  EXPECT_TRUE(refuses([&] { attention->forward(x); }, "rope_cos with use_rope, got none"));
  EXPECT_TRUE(refuses([&] { attention->forward(x, cos, sin.narrow(0, 0, 1)); },
                      "rope_sin (3, 4), got (1, 4)"));
  EXPECT_TRUE(refuses([&] { attention->forward(x[0], cos, sin); }, "(B, T, X, C)"));
  EXPECT_TRUE(refuses(
      [&] {
        attention->forward(torch::zeros({1, 3, 2, 6}), cos, sin);
      },
      "x of width 8"));
}

PixelCrossAttentionOptions cross_options(const nlohmann::json& c) {
  return {c["hidden_size"], c["token_dim"], c["n_q_heads"],
          c["n_kv_heads"],  c["d_head"],    c["use_proj_bias"]};
}

TEST(PixelCrossAttention, Goldens) {
  HALCYON_NEEDS_SHARED();
  for (const std::string name : {"q32_kv2", "q16_kv1", "no_tokens"}) {
    SCOPED_TRACE(name);
    const auto g = golden("healda/pixel_cross_attention_" + name);
    PixelCrossAttention attention(cross_options(g.config));
    const int64_t longest = g.config.value("max_seqlen_k", 0);
    const auto forward = [&](const Named& in) {
      return Named{{"y", attention->forward(in.at("hidden_states"), in.at("tokens"),
                                            in.at("cu_seqlens_k"), longest)}};
    };
    check_golden(g, *attention, forward);
  }
}

TEST(PixelCrossAttention, EmptyPixelsGetTheBias) {
  PixelCrossAttention attention(PixelCrossAttentionOptions{6, 4, 16, 1, 2, true});
  double_leaves(*attention, {});
  const auto h = leaf({1, 1, 3, 6}), tokens = leaf({3, 4});
  const auto cu = torch::tensor({0, 0, 3, 3}, torch::kLong);
  const auto y = attention->forward(h, tokens, cu, 3);
  const auto bias = attention->named_parameters()["out_proj.bias"];
  EXPECT_TRUE(identical(y[0][0][0], bias));
  EXPECT_TRUE(identical(y[0][0][2], bias));
  EXPECT_FALSE(near(y[0][0][1], bias, 1e-3));
  EXPECT_TRUE(gradcheck([&] { return std::vector{attention->forward(h, tokens, cu, 3)}; },
                        double_leaves(*attention, {h, tokens})));
}

TEST(PixelCrossAttention, WithoutBiasesHasWeightsOnly) {
  PixelCrossAttention attention(PixelCrossAttentionOptions{6, 4, 16, 1, 2, false});
  EXPECT_EQ(attention->named_parameters().keys(),
            (std::vector<std::string>{"q_proj.weight", "k_proj.weight", "v_proj.weight",
                                      "out_proj.weight"}));
  double_leaves(*attention, {});
  const auto h = leaf({1, 1, 3, 6}), tokens = leaf({3, 4});
  const auto cu = torch::tensor({0, 0, 3, 3}, torch::kLong);
  const auto y = attention->forward(h, tokens, cu, 3);
  EXPECT_TRUE(identical(y[0][0][0], torch::zeros_like(y[0][0][0])));
  EXPECT_TRUE(identical(y[0][0][2], torch::zeros_like(y[0][0][2])));
  EXPECT_TRUE(y[0][0][1].ne(0).all().item<bool>());
  EXPECT_TRUE(gradcheck([&] { return std::vector{attention->forward(h, tokens, cu, 3)}; },
                        double_leaves(*attention, {h, tokens})));
}

TEST(PixelCrossAttention, HintsChangeNothing) {
  PixelCrossAttention attention(PixelCrossAttentionOptions{6, 4, 32, 2, 2, true});
  const auto h = torch::randn({1, 2, 2, 6}), tokens = torch::randn({7, 4});
  const auto cu = torch::tensor({0, 1, 1, 5, 7}, torch::kInt);
  const auto y = attention->forward(h, tokens, cu, 4);
  EXPECT_TRUE(identical(attention->forward(h, tokens, cu, 4, build_pixel_group_map(cu)), y));
  EXPECT_TRUE(identical(attention->forward(h, tokens, cu.to(at::kLong), 4), y));
}

TEST(PixelCrossAttention, Refuses) {
  const auto with_heads = [](int64_t q, int64_t kv) {
    return [=] { PixelCrossAttention(PixelCrossAttentionOptions{8, 4, q, kv, 2}); };
  };
  EXPECT_TRUE(refuses(with_heads(16, 0), "n_kv_heads 1 or an even number, got 0"));
  EXPECT_TRUE(refuses(with_heads(48, 3), "n_kv_heads 1 or an even number, got 3"));
  EXPECT_TRUE(refuses(with_heads(33, 2), "n_q_heads divisible by n_kv_heads, got 33 and 2"));
  EXPECT_TRUE(refuses(with_heads(16, 2), "n_q_heads / n_kv_heads >= 16, got 16 / 2"));
  PixelCrossAttention attention(PixelCrossAttentionOptions{8, 4, 16, 1, 2});
  const auto h = torch::zeros({1, 1, 2, 8}), tokens = torch::zeros({3, 4});
  const auto cu = torch::tensor({0, 1, 3}, torch::kInt);
  EXPECT_TRUE(refuses([&] { attention->forward(h[0], tokens, cu, 2); }, "(B, T, X, C)"));
  EXPECT_TRUE(refuses([&] { attention->forward(h.narrow(3, 0, 4), tokens, cu, 2); }, "width 8"));
  EXPECT_TRUE(refuses([&] { attention->forward(h, tokens[0], cu, 2); }, "(N, token_dim)"));
  EXPECT_TRUE(refuses([&] { attention->forward(h, tokens.narrow(1, 0, 2), cu, 2); }, "width 4"));
  EXPECT_TRUE(refuses([&] { attention->forward(h, at::Tensor(), cu, 2); }, "got no tensor"));
  EXPECT_TRUE(refuses([&] { attention->forward(h, tokens, cu.narrow(0, 0, 2), 2); },
                      "B * T * X + 1 = 3 elements"));
  EXPECT_TRUE(refuses([&] { attention->forward(h, tokens.narrow(0, 0, 2), cu, 2); }, "expected"));
  EXPECT_TRUE(refuses([&] { attention->attend(h, std::any(3)); }, "got others"));
}

}  // namespace
}  // namespace halcyon::test
