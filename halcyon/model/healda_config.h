// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace halcyon {

// Every constructor argument of HealDA, in the order of checkpoints; the defaults are the
// production model (1 506 070 474 parameters).
struct HealDAConfig {
  int64_t in_channels = 2, out_channels = 74;
  int64_t hidden_size = 1536, num_layers = 32, num_heads = 16;
  double mlp_ratio = 4.0;
  int64_t level_in = 6, level_model = 5;  // HEALPix levels of the fields and of the tokens
  int64_t time_length = 8;
  int64_t condition_embed_dim = 128, noise_channels = 128, condition_dim = 0;
  bool temporal_attention = true, is_causal = true, linear_attention = true, use_rope = true;
  double rope_base = 100;
  int64_t max_seq_len = 100;
  std::optional<int64_t> temporal_causal_window;
  double drop_path = 0.1;  // constant after the first blocks, which have none
  int64_t drop_path_zero_first_n_blocks = 4;
  std::optional<std::string> qk_norm_type = "RMSNorm";
  bool qk_norm_affine = false;
  std::string attention_backend = "timm", layernorm_backend = "torch";
  int64_t obs_token_dim = 32, obs_meta_dim = 50, obs_type_embed_dim = 4;
  std::optional<int64_t> channel_embed_dim = 16, platform_embed_dim = 8, obs_film_hidden_dim = 64;
  bool use_fused_obs_mlp = true;
  int64_t pixel_attn_n_q_heads = 64, pixel_attn_n_kv_heads = 2, pixel_attn_head_dim = 32;
  bool pixel_attn_use_proj_bias = true;
  // Ours: the coarse pad_xy pixels at level_model, ascending, of a regional model.
  std::optional<std::vector<int64_t>> region;

  bool operator==(const HealDAConfig&) const = default;

  // All arguments in this order; region only when there is one, so that global models stay readable
  // elsewhere.
  nlohmann::ordered_json to_json() const;
  // Missing arguments keep their defaults. Throws Error(configuration) naming an unknown argument
  // and its nearest, or an argument of the wrong type.
  static HealDAConfig from_json(const nlohmann::ordered_json& arguments);
  static HealDAConfig from_json(const nlohmann::json& arguments);
  static const std::vector<std::string>& names();
};

}  // namespace halcyon
