// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/model/healda_config.h"

namespace halcyon::test {

// A model of two frames that takes milliseconds.
inline HealDAConfig small_healda() {
  HealDAConfig config;
  config.out_channels = 3;
  config.hidden_size = 16;
  config.num_layers = 2;
  config.num_heads = 2;
  config.level_in = 2;
  config.level_model = 1;
  config.time_length = 2;
  config.condition_embed_dim = 8;
  config.noise_channels = 8;
  config.obs_meta_dim = 5;
  config.obs_token_dim = 8;
  config.pixel_attn_n_q_heads = 16;
  config.pixel_attn_n_kv_heads = 1;
  config.pixel_attn_head_dim = 4;
  return config;
}

}  // namespace halcyon::test
