// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/obs_tokenizer.h"

#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>

#include <bit>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/ops/film/film_tokenizer.h"

namespace halcyon {
namespace {

constexpr const char* kName = "ObsTokenizerFiLM";
constexpr double kEps = 1e-5;
constexpr int64_t kWideOutput = 64;

void check_ids(const char* name, const at::Tensor& ids, int64_t count) {
  HALCYON_CHECK(ids.defined() && ids.dim() == 1 && ids.size(0) == count, kName,
                "expected {} ({},), got {}", name, count, describe(ids));
}

}  // namespace

ObsTokenizerFiLMImpl::ObsTokenizerFiLMImpl(ObsTokenizerFiLMOptions options)
    : torch::nn::Module(kName), options_(options) {
  const int64_t type_width = options.obs_type_embed_dim, out = options.out_dim;
  const int64_t channel_width = options.channel_embed_dim.value_or(type_width);
  const int64_t platform_width = options.platform_embed_dim.value_or(0);
  nn::check_positive(kName, "out_dim", out);
  nn::check_positive(kName, "n_embed", options.n_embed);
  HALCYON_CHECK(
      options.meta_dim >= 0 && type_width >= 0 && channel_width >= 0 && platform_width >= 0, kName,
      "expected widths >= 0, got metadata {}, type {}, channel {}, platform {}", options.meta_dim,
      type_width, channel_width, platform_width);
  hidden_dim_ = options.hidden_dim.value_or(out <= kWideOutput ? 2 * out : out);
  nn::check_positive(kName, "hidden_dim", hidden_dim_);

  embed_table_ = register_module("embed_table", nn::Embedding(options.n_embed, type_width));
  channel_embedding_ =
      register_module("channel_embedding", nn::Embedding(kMaxChannels, channel_width));
  if (platform_width > 0) {
    platform_embedding_ =
        register_module("platform_embedding", nn::Embedding(kMaxPlatforms, platform_width));
  }
  first_ = nn::Linear(options.meta_dim + type_width + channel_width + platform_width, hidden_dim_);
  norm_ = nn::LayerNorm(hidden_dim_, kEps);
  second_ = nn::Linear(hidden_dim_, 2 * out);
  register_module("cond_mlp", torch::nn::Sequential(first_, norm_, torch::nn::SiLU(), second_));
}

at::Tensor ObsTokenizerFiLMImpl::forward(const at::Tensor& obs, const at::Tensor& float_metadata,
                                         const at::Tensor& obs_type, const at::Tensor& channel_ids,
                                         const std::optional<at::Tensor>& platform_ids) {
  nn::check_rank(kName, "obs", obs, 1, "(N,)");
  const int64_t count = obs.size(0);
  HALCYON_CHECK(float_metadata.defined() &&
                    float_metadata.sizes() == at::IntArrayRef({count, options_.meta_dim}),
                kName, "expected float_metadata ({}, {}), got {}", count, options_.meta_dim,
                describe(float_metadata));
  check_ids("obs_type", obs_type, count);
  check_ids("channel_ids", channel_ids, count);
  const bool platforms = !platform_embedding_.is_empty();
  HALCYON_CHECK(!platforms || (platform_ids && platform_ids->defined()), kName,
                "expected platform_ids, got none");
  if (platforms) check_ids("platform_ids", *platform_ids, count);
  nn::check_input(kName, "obs", obs, first_->weight);
  nn::check_input(kName, "float_metadata", float_metadata, first_->weight);
  // the fused device kernel works on whole powers of two
  HALCYON_CHECK(!(options_.use_fused_mlp && obs.is_cuda()) ||
                    std::has_single_bit(static_cast<uint64_t>(hidden_dim_)),
                kName, "expected hidden_dim a power of two with use_fused_mlp, got {}",
                hidden_dim_);
  return film_tokenizer(
      obs, float_metadata, obs_type, channel_ids, platforms ? platform_ids : std::nullopt,
      embed_table_->weight, channel_embedding_->weight,
      platforms ? std::optional(platform_embedding_->weight) : std::nullopt, first_->weight,
      first_->bias, norm_->weight, norm_->bias, second_->weight, second_->bias, kEps);
}

}  // namespace halcyon
