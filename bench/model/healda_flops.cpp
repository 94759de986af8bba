// SPDX-License-Identifier: Apache-2.0
#include "bench/model/healda_flops.h"

#include "halcyon/sphere/healpix.h"

namespace halcyon::bench {

std::vector<std::pair<std::string, double>> healda_flops(const HealDAConfig& c, int64_t rows) {
  const auto d = [](int64_t i) { return static_cast<double>(i); };
  const double pixels = d(healpix::npix(static_cast<int>(c.level_model)));
  const double frames = d(c.time_length), tokens = frames * pixels, width = d(c.hidden_size);
  const double attended = d(c.pixel_attn_n_q_heads * c.pixel_attn_head_dim);
  const double kv = d(c.pixel_attn_n_kv_heads * c.pixel_attn_head_dim);
  const double condition =
      d(c.obs_meta_dim + c.obs_type_embed_dim + c.channel_embed_dim.value_or(c.obs_type_embed_dim) +
        c.platform_embed_dim.value_or(0));
  const double hidden = d(c.obs_film_hidden_dim.value_or(2 * c.obs_token_dim)),
               layers = d(c.num_layers);
  const double projections = 8 * tokens * width * width;
  const double cross =
      4 * (tokens * width * attended + d(rows) * (d(c.obs_token_dim) * kv + attended));
  return {
      {"halcyon::obs_tokenizer", 2 * d(rows) * hidden * (condition + 2 * d(c.obs_token_dim))},
      {"halcyon::tokenizer", 8 * tokens * width * d(c.in_channels)},
      {"halcyon::spatial_attention", layers * (projections + 4 * tokens * width * pixels)},
      {"halcyon::cross_attention", layers * cross},
      {"halcyon::temporal_attention", layers * (projections + 2 * tokens * width * (frames + 1))},
      {"halcyon::mlp", layers * 4 * c.mlp_ratio * tokens * width * width},
      {"halcyon::detokenizer", 8 * tokens * width * d(c.out_channels)}};
}

}  // namespace halcyon::bench
