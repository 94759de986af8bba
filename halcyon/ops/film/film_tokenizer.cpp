// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/film/film_tokenizer.h"

#include <ATen/ATen.h>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/film/backends.h"

namespace halcyon {
namespace {

constexpr auto kName = "film_tokenizer";

void check_vector(const at::Tensor& t, const c10::SymInt& length, const at::Tensor& obs,
                  const char* name) {
  check_floating(t, 1, kName, name);
  HALCYON_CHECK(t.sym_size(0) == length, kName, "expected {} of length {}, got {}", name,
                length.guard_int(__FILE__, __LINE__), t.sym_size(0).guard_int(__FILE__, __LINE__));
  check_device(t, obs, kName, name);
}

void check_matrix(const at::Tensor& t, const c10::SymInt& rows, const c10::SymInt& columns,
                  const at::Tensor& obs, const char* name) {
  check_floating(t, 2, kName, name);
  check_shape(t, {rows, columns}, kName, name);
  check_device(t, obs, kName, name);
}

// Ids (N,) into table (rows, width).
void check_table(const at::Tensor& ids, const at::Tensor& table, const at::Tensor& obs,
                 const char* ids_name, const char* table_name) {
  check_index(ids, obs.sym_size(0), kName, ids_name);
  check_device(ids, obs, kName, ids_name);
  check_floating(table, 2, kName, table_name);
  check_device(table, obs, kName, table_name);
}

}  // namespace

at::Tensor film_tokenizer(const at::Tensor& obs, const at::Tensor& float_metadata,
                          const at::Tensor& obs_type, const at::Tensor& channel,
                          const std::optional<at::Tensor>& platform, const at::Tensor& embed_table,
                          const at::Tensor& channel_embedding,
                          const std::optional<at::Tensor>& platform_embedding,
                          const at::Tensor& weight1, const at::Tensor& bias1,
                          const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                          const at::Tensor& weight2, const at::Tensor& bias2, double eps) {
  check_floating(obs, 1, kName, "obs");
  check_floating(float_metadata, 2, kName, "float_metadata");
  HALCYON_CHECK(float_metadata.sym_size(0) == obs.sym_size(0), kName,
                "expected {} rows of float_metadata, got {}",
                obs.sym_size(0).guard_int(__FILE__, __LINE__),
                float_metadata.sym_size(0).guard_int(__FILE__, __LINE__));
  check_device(float_metadata, obs, kName, "float_metadata");
  check_table(obs_type, embed_table, obs, "obs_type", "embed_table");
  check_table(channel, channel_embedding, obs, "channel", "channel_embedding");
  auto width = float_metadata.sym_size(1) + embed_table.sym_size(1) + channel_embedding.sym_size(1);
  if (platform_embedding) {
    HALCYON_CHECK(platform.has_value(), kName,
                  "expected platform ids beside platform_embedding, got none");
    check_table(*platform, *platform_embedding, obs, "platform", "platform_embedding");
    width = width + platform_embedding->sym_size(1);
  }
  check_floating(weight1, 2, kName, "weight1");
  const auto hidden = weight1.sym_size(0);
  HALCYON_CHECK(hidden > 0, kName, "expected a hidden width of 1 or more, got 0");
  check_matrix(weight1, hidden, width, obs, "weight1");
  check_vector(bias1, hidden, obs, "bias1");
  check_vector(norm_weight, hidden, obs, "norm_weight");
  check_vector(norm_bias, hidden, obs, "norm_bias");
  check_floating(weight2, 2, kName, "weight2");
  check_matrix(weight2, weight2.sym_size(0), hidden, obs, "weight2");
  HALCYON_CHECK(weight2.sym_size(0) > 0 && weight2.sym_size(0) % 2 == 0, kName,
                "expected weight2 of 2 * out rows, got {}",
                weight2.sym_size(0).guard_int(__FILE__, __LINE__));
  check_vector(bias2, weight2.sym_size(0), obs, "bias2");
  HALCYON_CHECK(eps >= 0, kName, "expected an eps of 0 or more, got {}", eps);

  film_detail::Inputs in{{obs, float_metadata, weight1, bias1, norm_weight, norm_bias, weight2,
                          bias2, embed_table, channel_embedding},
                         {obs_type, channel},
                         eps};
  if (platform_embedding) {
    in.floats.push_back(*platform_embedding);
    in.ids.push_back(*platform);
  }
  if (under_transform()) return film_detail::composed(in);
  if (!obs.is_cpu() && !obs.is_meta()) {
    film_detail::check_ids(in);
    return film_detail::composed(in);
  }
  using Kernel = at::Tensor(at::TensorList, at::TensorList, double, at::ScalarType);
  static const auto op = operator_named<Kernel>("halcyon::_film_tokenizer");
  return op.call(in.floats, in.ids, in.eps, film_detail::result_type(in));
}

}  // namespace halcyon
