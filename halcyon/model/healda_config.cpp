// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/healda_config.h"

#include <algorithm>
#include <type_traits>

#include "halcyon/base/error.h"
#include "halcyon/base/suggest.h"

namespace halcyon {
namespace {

using nlohmann::ordered_json;

// The one list of fields: calls visit(name, field) in order.
template <class Config, class Visit>
void for_each_field(Config& c, Visit&& visit) {
#define HALCYON_FIELD(name) visit(#name, c.name)
  HALCYON_FIELD(in_channels);
  HALCYON_FIELD(out_channels);
  HALCYON_FIELD(hidden_size);
  HALCYON_FIELD(num_layers);
  HALCYON_FIELD(num_heads);
  HALCYON_FIELD(mlp_ratio);
  HALCYON_FIELD(level_in);
  HALCYON_FIELD(level_model);
  HALCYON_FIELD(time_length);
  HALCYON_FIELD(condition_embed_dim);
  HALCYON_FIELD(noise_channels);
  HALCYON_FIELD(condition_dim);
  HALCYON_FIELD(temporal_attention);
  HALCYON_FIELD(is_causal);
  HALCYON_FIELD(linear_attention);
  HALCYON_FIELD(use_rope);
  HALCYON_FIELD(rope_base);
  HALCYON_FIELD(max_seq_len);
  HALCYON_FIELD(temporal_causal_window);
  HALCYON_FIELD(drop_path);
  HALCYON_FIELD(drop_path_zero_first_n_blocks);
  HALCYON_FIELD(qk_norm_type);
  HALCYON_FIELD(qk_norm_affine);
  HALCYON_FIELD(attention_backend);
  HALCYON_FIELD(layernorm_backend);
  HALCYON_FIELD(obs_token_dim);
  HALCYON_FIELD(obs_meta_dim);
  HALCYON_FIELD(obs_type_embed_dim);
  HALCYON_FIELD(channel_embed_dim);
  HALCYON_FIELD(platform_embed_dim);
  HALCYON_FIELD(obs_film_hidden_dim);
  HALCYON_FIELD(use_fused_obs_mlp);
  HALCYON_FIELD(pixel_attn_n_q_heads);
  HALCYON_FIELD(pixel_attn_n_kv_heads);
  HALCYON_FIELD(pixel_attn_head_dim);
  HALCYON_FIELD(pixel_attn_use_proj_bias);
  HALCYON_FIELD(region);
#undef HALCYON_FIELD
}

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

[[noreturn]] void wrong_type(const std::string& name, const char* expected,
                             const ordered_json& value) {
  throw_error(ErrorKind::configuration, "HealDAConfig",
              fmt::format("expected {} {}, got {}", name, expected, value.dump()));
}

template <class T>
void read(const std::string& name, const ordered_json& value, T& field) {
  if constexpr (IsOptional<T>::value) {
    field.reset();
    if (!value.is_null()) read(name, value, field.emplace());
  } else if constexpr (IsVector<T>::value) {
    if (!value.is_array()) wrong_type(name, "to be a list of integers", value);
    field.clear();
    for (const auto& element : value) read(name, element, field.emplace_back());
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) wrong_type(name, "to be true or false", value);
    field = value.get<bool>();
  } else if constexpr (std::is_same_v<T, int64_t>) {
    if (!value.is_number_integer()) wrong_type(name, "to be an integer", value);
    // a number above 2^63 wraps to a negative one, which no argument takes
    field = value.get<int64_t>();
  } else if constexpr (std::is_same_v<T, double>) {
    if (!value.is_number()) wrong_type(name, "to be a number", value);
    field = value.get<double>();
  } else {
    if (!value.is_string()) wrong_type(name, "to be a string", value);
    field = value.get<std::string>();
  }
}

template <class T>
ordered_json written(const T& field) {
  if constexpr (IsOptional<T>::value) {
    return field ? ordered_json(*field) : ordered_json(nullptr);
  } else {
    return field;
  }
}

}  // namespace

const std::vector<std::string>& HealDAConfig::names() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> names;
    const HealDAConfig config;
    for_each_field(config, [&](const char* name, const auto&) { names.emplace_back(name); });
    return names;
  }();
  return all;
}

ordered_json HealDAConfig::to_json() const {
  ordered_json arguments = ordered_json::object();
  for_each_field(*this,
                 [&](const char* name, const auto& field) { arguments[name] = written(field); });
  if (!region) arguments.erase("region");
  return arguments;
}

HealDAConfig HealDAConfig::from_json(const ordered_json& arguments) {
  HALCYON_CHECK_KIND(arguments.is_object(), configuration, "HealDAConfig",
                     "expected an object of arguments, got {}", arguments.type_name());
  for (const auto& [name, value] : arguments.items()) {
    HALCYON_CHECK_KIND(std::find(names().begin(), names().end(), name) != names().end(),
                       configuration, "HealDAConfig", "expected arguments of HealDA, got \"{}\"{}",
                       name, did_you_mean(name, names()));
  }
  HealDAConfig config;
  for_each_field(config, [&](const char* name, auto& field) {
    if (const auto found = arguments.find(name); found != arguments.end())
      read(name, *found, field);
  });
  return config;
}

HealDAConfig HealDAConfig::from_json(const nlohmann::json& arguments) {
  return from_json(ordered_json(arguments));
}

}  // namespace halcyon
