// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "halcyon/nn/layers.h"

namespace halcyon {

// Rows of the channel and platform tables: the room for ids of every observing system.
inline constexpr int64_t kMaxChannels = 1024, kMaxPlatforms = 1024;

struct ObsTokenizerFiLMOptions {
  int64_t meta_dim = 0, out_dim = 0;
  int64_t n_embed = 1024, obs_type_embed_dim = 4;
  std::optional<int64_t> channel_embed_dim = {};   // obs_type_embed_dim without it
  std::optional<int64_t> platform_embed_dim = {};  // none without it
  bool use_fused_mlp = true;
  std::optional<int64_t> hidden_dim = {};  // 2 * out_dim up to an out_dim of 64, out_dim beyond
};

// One observation becomes one token: its value scaled and shifted (FiLM, Perez et al. 2018) by an
// MLP of its metadata and of the embeddings of its type, channel and platform. Keys
// embed_table.weight, channel_embedding.weight, platform_embedding.weight and cond_mlp.{0,1,3}.
class ObsTokenizerFiLMImpl : public torch::nn::Module {
 public:
  explicit ObsTokenizerFiLMImpl(ObsTokenizerFiLMOptions options);

  // obs (N,), float_metadata (N, meta_dim); obs_type, channel_ids, platform_ids (N,) int32 or int64
  // -> (N, out_dim). platform_ids are needed when they are embedded, else ignored.
  at::Tensor forward(const at::Tensor& obs, const at::Tensor& float_metadata,
                     const at::Tensor& obs_type, const at::Tensor& channel_ids,
                     const std::optional<at::Tensor>& platform_ids = std::nullopt);

 private:
  ObsTokenizerFiLMOptions options_;
  int64_t hidden_dim_ = 0;
  nn::Embedding embed_table_{nullptr}, channel_embedding_{nullptr}, platform_embedding_{nullptr};
  nn::Linear first_{nullptr}, second_{nullptr};
  nn::LayerNorm norm_{nullptr};
};
TORCH_MODULE(ObsTokenizerFiLM);

}  // namespace halcyon
