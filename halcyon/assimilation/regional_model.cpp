// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "halcyon/assimilation/regional_system.h"
#include "halcyon/base/error.h"
#include "halcyon/base/time.h"

namespace halcyon::assimilation {

namespace {

constexpr int64_t kStaticChannels = 4, kClockChannels = 4;

// A field of the grid on the pixels; pixels beyond its edge take the mean.
at::Tensor on_pixels(const RegionalSystem& system, const at::Tensor& field) {
  const auto values = system.to_pixels.apply(field);
  return at::where(values.isnan(), field.mean(), values);
}

at::Tensor statics(const RegionalSystem& system, const at::Tensor& spread) {
  auto [lon, lat] = system.pixels.centres();
  lon = lon * (std::numbers::pi / 180);
  lat = lat * (std::numbers::pi / 180);
  const auto relative = spread / system.spread.mean();
  return at::stack({relative.to(at::kDouble), lat.sin(), lon.sin(), lon.cos()})
      .to(at::kFloat)
      .view({1, 4, 1, -1});
}

}  // namespace

RegionalModel::RegionalModel(const RegionalSystem& system, HealDA model)
    : system_(system),
      model_(std::move(model)),
      encoder_(system.tokens),
      pixel_spread_(on_pixels(system, system.spread)) {
  statics_ = statics(system, pixel_spread_);
  const auto& config = model_->config();
  const auto& pixels = system.tokens.pixels();
  const bool same =
      config.region.has_value() &&
      std::equal(config.region->begin(), config.region->end(), pixels.const_data_ptr<int64_t>(),
                 pixels.const_data_ptr<int64_t>() + pixels.numel());
  HALCYON_CHECK_KIND(same, configuration, "analysis",
                     "the checkpoint's region is not that of the system {}", system.name);
  HALCYON_CHECK_KIND(
      config.level_in == system.pixels.level() &&
          config.in_channels == kStaticChannels + kClockChannels && config.out_channels == 1 &&
          config.time_length == 1 && config.obs_meta_dim == SurfaceEncoder::kFeatures,
      configuration, "analysis",
      "the checkpoint's inputs and outputs are not those of the system {}", system.name);
}

at::Tensor RegionalModel::forward_pixels(const std::vector<DepartureSet>& batch) {
  const auto size = static_cast<int64_t>(batch.size());
  const auto weights = model_->parameters().front().options();
  const auto device = weights.device();
  const auto type = c10::typeMetaToScalarType(weights.dtype());
  auto clock = at::empty({size, kClockChannels, 1, 1});
  for (int64_t b = 0; b < size; ++b) {
    const double hour = second_of_day(batch[b].time) / 86400,
                 year = day_of_year(batch[b].time) / 365.25;
    auto* c = clock.mutable_data_ptr<float>() + b * kClockChannels;
    for (const double turn : {hour, year}) {
      *c++ = static_cast<float>(std::sin(2 * std::numbers::pi * turn));
      *c++ = static_cast<float>(std::cos(2 * std::numbers::pi * turn));
    }
  }
  const auto pixels = statics_.size(3);
  const auto x =
      at::cat({statics_.expand({size, -1, -1, -1}), clock.expand({size, -1, 1, pixels})}, 1)
          .to(device, type);
  // One year of fields teaches nothing about its single days: the calendar embedding, whose
  // harmonics resolve them, is held at one date, and the season and the hour come as smooth
  // channels.
  const auto date = at::zeros({size, 1}, x.options().dtype(at::kFloat));
  const auto context = encoder_.encode(batch).to(device, type);
  const auto scaled = model_->forward(x, at::zeros({size}, x.options()), date, date, context);
  return scaled.reshape({size, -1}).to(at::kFloat).cpu() * pixel_spread_;
}

at::Tensor RegionalModel::forward(const std::vector<DepartureSet>& batch) {
  return system_.to_grid.apply(forward_pixels(batch));
}

at::Tensor RegionalModel::analyse_pixels(const std::vector<DepartureSet>& batch, int64_t chunk) {
  const torch::NoGradGuard no_grad;
  const bool training = model_->is_training();
  model_->eval();
  std::vector<at::Tensor> parts{at::empty({0, system_.pixels.size()})};
  for (std::size_t first = 0; first < batch.size(); first += static_cast<std::size_t>(chunk)) {
    const auto last = std::min(batch.size(), first + static_cast<std::size_t>(chunk));
    parts.push_back(forward_pixels({batch.begin() + static_cast<std::ptrdiff_t>(first),
                                    batch.begin() + static_cast<std::ptrdiff_t>(last)}));
  }
  model_->train(training);
  return at::cat(parts);
}

at::Tensor RegionalModel::analyse(const std::vector<DepartureSet>& batch, int64_t chunk) {
  return system_.to_grid.apply(analyse_pixels(batch, chunk));
}

HealDAConfig regional_config(const RegionalSystem& system, const config::Node& model) {
  HealDAConfig config;
  config.hidden_size = model.required<int64_t>("hidden_size", config::at_least(4));
  config.num_layers = model.required<int64_t>("num_layers", config::at_least(1));
  config.num_heads = model.required<int64_t>("num_heads", config::at_least(1));
  config.mlp_ratio = model.optional<double>("mlp_ratio", 4.0, config::positive());
  config.drop_path = model.optional<double>("drop_path", 0.0, config::between(0, 1));
  config.drop_path_zero_first_n_blocks = 0;
  config.obs_token_dim = model.optional<int64_t>("obs_token_dim", 32, config::at_least(1));
  config.obs_film_hidden_dim =
      model.optional<int64_t>("obs_film_hidden_dim", 64, config::at_least(1));
  config.pixel_attn_n_q_heads =
      model.optional<int64_t>("pixel_attn_n_q_heads", 16, config::at_least(16));
  config.pixel_attn_n_kv_heads =
      model.optional<int64_t>("pixel_attn_n_kv_heads", 1, config::at_least(1));
  config.pixel_attn_head_dim =
      model.optional<int64_t>("pixel_attn_head_dim", 16, config::at_least(1));
  // what the system fixes
  const auto& pixels = system.tokens.pixels();
  config.region.emplace(pixels.const_data_ptr<int64_t>(),
                        pixels.const_data_ptr<int64_t>() + pixels.numel());
  config.level_in = system.pixels.level();
  config.level_model = system.tokens.level();
  config.in_channels = kStaticChannels + kClockChannels;
  config.out_channels = 1;
  config.time_length = 1;
  config.temporal_attention = false;
  config.obs_meta_dim = SurfaceEncoder::kFeatures;
  return config;
}

}  // namespace halcyon::assimilation
