// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/healda.h"

#include <ATen/record_function.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/sphere/healpix.h"

namespace halcyon {
namespace {

constexpr const char* kName = "HealDA";

std::optional<Region> region_of(const HealDAConfig& config) {
  if (!config.region) return std::nullopt;
  return Region::of_pixels(static_cast<int>(config.level_model), *config.region);
}

std::vector<double> drop_path_rates(const HealDAConfig& config) {
  std::vector<double> rates;
  rates.reserve(static_cast<std::size_t>(config.num_layers));
  for (int64_t i = 0; i < config.num_layers; ++i)
    rates.push_back(i < config.drop_path_zero_first_n_blocks ? 0.0 : config.drop_path);
  return rates;
}

ObsTokenizerFiLMOptions obs_tokenizer_options(const HealDAConfig& config) {
  ObsTokenizerFiLMOptions options;
  options.meta_dim = config.obs_meta_dim;
  options.out_dim = config.obs_token_dim;
  options.obs_type_embed_dim = config.obs_type_embed_dim;
  options.channel_embed_dim = config.channel_embed_dim;
  options.platform_embed_dim = config.platform_embed_dim;
  options.use_fused_mlp = config.use_fused_obs_mlp;
  options.hidden_dim = config.obs_film_hidden_dim;
  return options;
}

VideoDiTOptions dit_options(const HealDAConfig& config, std::optional<Region> grid) {
  VideoDiTOptions options;
  options.hidden_size = config.hidden_size;
  options.num_heads = config.num_heads;
  options.num_layers = config.num_layers;
  options.emb_channels = config.condition_embed_dim;
  options.noise_channels = config.noise_channels;
  options.condition_dim = config.condition_dim;
  options.temporal_attention = config.temporal_attention;
  options.use_rope = config.use_rope;
  options.rope_base = config.rope_base;
  options.max_seq_len = config.max_seq_len;
  options.temporal_kwargs = {config.linear_attention, config.temporal_causal_window};
  options.cross_attention = pixel_cross_attention(
      {config.hidden_size, config.obs_token_dim, config.pixel_attn_n_q_heads,
       config.pixel_attn_n_kv_heads, config.pixel_attn_head_dim, config.pixel_attn_use_proj_bias});
  options.is_causal = config.is_causal;
  options.attention_backend = config.attention_backend;
  options.layernorm_backend = config.layernorm_backend;
  options.mlp_ratio = config.mlp_ratio;
  options.drop_path_rates = drop_path_rates(config);
  options.attn_kwargs.qk_norm_type = config.qk_norm_type;
  options.attn_kwargs.qk_norm_affine = config.qk_norm_affine;
  options.grid = std::move(grid);
  options.token_order = healpix::Order::pad_xy;
  return options;
}

}  // namespace

HealDAImpl::HealDAImpl(HealDAConfig config, nn::Parameters parameters)
    : torch::nn::Module(kName), config_(std::move(config)) {
  nn::check_positive(kName, "num_layers", config_.num_layers);
  nn::check_positive(kName, "time_length", config_.time_length);
  nn::check_rate(kName, "drop_path", config_.drop_path);
  HALCYON_CHECK(config_.level_model >= 0 && config_.level_model <= config_.level_in &&
                    config_.level_in <= healpix::kMaxLevel,
                kName, "expected 0 <= level_model <= level_in <= {}, got {} and {}",
                healpix::kMaxLevel, config_.level_model, config_.level_in);
  HALCYON_CHECK(!config_.temporal_attention || !config_.use_rope ||
                    config_.time_length <= config_.max_seq_len,
                kName, "expected time_length of at most max_seq_len = {}, got {}",
                config_.max_seq_len, config_.time_length);
  const nn::ParametersGuard mode(parameters);
  const auto region = region_of(config_);
  obs_tokenizer_ =
      register_module("obs_tokenizer", ObsTokenizerFiLM(obs_tokenizer_options(config_)));

  HEALPixPatchTokenizerOptions fields_in;
  fields_in.in_channels = config_.in_channels;
  fields_in.hidden_size = config_.hidden_size;
  fields_in.level_fine = config_.level_in;
  fields_in.level_coarse = config_.level_model;
  fields_in.separate_time_axis = true;
  fields_in.region = region;
  const auto tokenizer = std::make_shared<HEALPixPatchTokenizerImpl>(fields_in);
  pixels_in_ = tokenizer->grid().fine_size();
  pixels_model_ = tokenizer->grid().coarse_size();

  HEALPixPatchDetokenizerOptions fields_out;
  fields_out.hidden_size = config_.hidden_size;
  fields_out.out_channels = config_.out_channels;
  fields_out.level_coarse = config_.level_model;
  fields_out.level_fine = config_.level_in;
  fields_out.time_length = config_.time_length;
  fields_out.condition_dim = config_.condition_embed_dim;
  fields_out.region = region;
  const auto detokenizer = std::make_shared<HEALPixPatchDetokenizerImpl>(fields_out);

  dit_ = register_module("dit", VideoDiT(tokenizer, detokenizer, dit_options(config_, region)));
}

void HealDAImpl::check(const at::Tensor& x, const at::Tensor& t, const at::Tensor& second_of_day,
                       const at::Tensor& day_of_year, const ObsContext& obs_ctx,
                       const std::optional<at::Tensor>& class_labels) const {
  nn::check_rank(kName, "x", x, 4, "(B, C, T, X)");
  HALCYON_CHECK(x.size(1) == config_.in_channels, kName, "expected x of {} channels, got {}",
                config_.in_channels, describe(x));
  // under context parallelism all ranks' frames are counted
  HALCYON_CHECK(dit_->is_context_parallel() || x.size(2) == config_.time_length, kName,
                "expected x of {} frames, got {}", config_.time_length, describe(x));
  HALCYON_CHECK(x.size(3) == pixels_in_, kName, "expected x of {} pixels, got {}", pixels_in_,
                describe(x));
  const int64_t batch = x.size(0), frames = x.size(2);
  HALCYON_CHECK(t.defined() && t.sizes() == at::IntArrayRef({batch}), kName,
                "expected t ({},), got {}", batch, describe(t));
  const auto check_calendar = [&](const char* name, const at::Tensor& time) {
    HALCYON_CHECK(time.defined() && time.sizes() == at::IntArrayRef({batch, frames}), kName,
                  "expected {} ({}, {}), got {}", name, batch, frames, describe(time));
  };
  check_calendar("second_of_day", second_of_day);
  check_calendar("day_of_year", day_of_year);
  const auto& offsets = obs_ctx.cu_seqlens_k;
  const int64_t pixels = batch * frames * pixels_model_;
  HALCYON_CHECK(offsets.defined() && offsets.dim() == 1 && offsets.size(0) == pixels + 1, kName,
                "expected obs_ctx.cu_seqlens_k of B * T * X + 1 = {} elements, got {}", pixels + 1,
                describe(offsets));
  const bool labels = class_labels && class_labels->defined();
  if (config_.condition_dim == 0) {
    HALCYON_CHECK(!labels, kName, "expected no class_labels with condition_dim 0, got {}",
                  describe(*class_labels));
    return;
  }
  HALCYON_CHECK(labels && class_labels->sizes() == at::IntArrayRef({batch, config_.condition_dim}),
                kName, "expected class_labels ({}, {}), got {}", batch, config_.condition_dim,
                labels ? describe(*class_labels) : "none");
}

void HealDAImpl::set_context_parallel(const std::optional<std::string>& mode,
                                      const parallel::Group& target) {
  dit_->set_context_parallel(mode, target);
}

void HealDAImpl::prepare_inference() {
  HALCYON_CHECK_KIND(config_.condition_dim == 0, unsupported, kName,
                     "prepare_inference() needs a model without class labels, got condition_dim {}",
                     config_.condition_dim);
  eval();
  dit_->prepare_inference();
}

at::Tensor HealDAImpl::forward(const at::Tensor& x, const at::Tensor& t,
                               const at::Tensor& second_of_day, const at::Tensor& day_of_year,
                               const ObsContext& obs_ctx,
                               const std::optional<at::Tensor>& class_labels) {
  const auto inputs = [&] {
    check(x, t, second_of_day, day_of_year, obs_ctx, class_labels);
    VideoDiTInputs in;
    // tokens once, for all blocks
    RECORD_USER_SCOPE("halcyon::obs_tokenizer");
    const auto tokens = obs_tokenizer_->forward(
        obs_ctx.obs, obs_ctx.float_metadata, obs_ctx.obs_type, obs_ctx.channel, obs_ctx.platform);
    in.x = x;
    in.t = t;
    in.condition = class_labels;
    in.cross_attn_kwargs = PixelCrossAttentionKwargs{tokens, obs_ctx.cu_seqlens_k,
                                                     obs_ctx.max_seqlen_k, obs_ctx.group_map};
    in.tokenizer_kwargs = CalendarKwargs{second_of_day, day_of_year};
    return in;
  };
  return dit_->forward_of(kName, inputs, config_.time_length);
}

}  // namespace halcyon
