// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/healda_config.h"

#include <gtest/gtest.h>

#include "halcyon/base/error.h"

namespace halcyon::test {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

TEST(HealDAConfig, DefaultsInOrder) {
  const auto arguments = HealDAConfig{}.to_json();
  const auto expected = ordered_json::parse(R"({
    "in_channels": 2, "out_channels": 74, "hidden_size": 1536, "num_layers": 32, "num_heads": 16,
    "mlp_ratio": 4.0, "level_in": 6, "level_model": 5, "time_length": 8,
    "condition_embed_dim": 128, "noise_channels": 128, "condition_dim": 0,
    "temporal_attention": true, "is_causal": true, "linear_attention": true, "use_rope": true,
    "rope_base": 100.0, "max_seq_len": 100, "temporal_causal_window": null, "drop_path": 0.1,
    "drop_path_zero_first_n_blocks": 4, "qk_norm_type": "RMSNorm", "qk_norm_affine": false,
    "attention_backend": "timm", "layernorm_backend": "torch", "obs_token_dim": 32,
    "obs_meta_dim": 50, "obs_type_embed_dim": 4, "channel_embed_dim": 16, "platform_embed_dim": 8,
    "obs_film_hidden_dim": 64, "use_fused_obs_mlp": true, "pixel_attn_n_q_heads": 64,
    "pixel_attn_n_kv_heads": 2, "pixel_attn_head_dim": 32, "pixel_attn_use_proj_bias": true})");
  EXPECT_EQ(arguments.dump(), expected.dump());
}

TEST(HealDAConfig, ThereAndBack) {
  HealDAConfig config;
  config.hidden_size = 64;
  config.mlp_ratio = 2.5;
  config.temporal_causal_window = 3;
  config.qk_norm_type.reset();
  config.platform_embed_dim.reset();
  config.attention_backend = "disk:10.5";
  config.region = std::vector<int64_t>{1, 5, 7};
  EXPECT_EQ(HealDAConfig::from_json(config.to_json()), config);
  EXPECT_EQ(HealDAConfig::from_json(json::parse(config.to_json().dump())), config);
  EXPECT_EQ(HealDAConfig::from_json(json::object()), HealDAConfig{});
  EXPECT_EQ(HealDAConfig::from_json(json{{"mlp_ratio", 3}}).mlp_ratio, 3.0);
}

TEST(HealDAConfig, Refuses) {
  const auto message = [](const json& arguments) -> std::string {
    try {
      HealDAConfig::from_json(arguments);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::configuration);
      return error.what();
    }
    return "nothing thrown";
  };
  const auto contains = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  const auto unknown = message({{"hidden_sise", 3}});
  EXPECT_TRUE(contains(unknown, "\"hidden_sise\"") && contains(unknown, "hidden_size")) << unknown;
  EXPECT_TRUE(contains(message({{"num_heads", 2.5}}), "num_heads to be an integer, got 2.5"));
  EXPECT_TRUE(contains(message({{"num_heads", nullptr}}), "num_heads to be an integer, got null"));
  EXPECT_TRUE(contains(message({{"use_rope", 1}}), "use_rope to be true or false, got 1"));
  EXPECT_TRUE(contains(message({{"drop_path", "0.1"}}), "drop_path to be a number"));
  EXPECT_TRUE(contains(message({{"qk_norm_type", 4}}), "qk_norm_type to be a string"));
  EXPECT_TRUE(contains(message({{"region", {1, "a"}}}), "region to be an integer"));
  EXPECT_TRUE(contains(message(json::array()), "expected an object"));
}

}  // namespace
}  // namespace halcyon::test
