// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/film/film_tokenizer.h"

#include <ATen/ATen.h>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/film/backends.h"

namespace halcyon {
namespace {

constexpr auto kName = "film_tokenizer";

void check_vector(const at::Tensor& t, int64_t length, const at::Tensor& obs, const char* name) {
  check_floating(t, 1, kName, name);
  HALCYON_CHECK(t.size(0) == length, kName, "expected {} of length {}, got {}", name, length,
                t.size(0));
  check_device(t, obs, kName, name);
}

void check_matrix(const at::Tensor& t, int64_t rows, int64_t columns, const at::Tensor& obs,
                  const char* name) {
  check_floating(t, 2, kName, name);
  HALCYON_CHECK((rows < 0 || t.size(0) == rows) && t.size(1) == columns, kName,
                "expected {} of shape ({}, {}), got {}", name, rows < 0 ? t.size(0) : rows, columns,
                describe(t));
  check_device(t, obs, kName, name);
}

// Ids (N,) into table (rows, width).
void check_table(const at::Tensor& ids, const at::Tensor& table, const at::Tensor& obs,
                 const char* ids_name, const char* table_name) {
  check_index(ids, obs.size(0), kName, ids_name);
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
  HALCYON_CHECK(float_metadata.size(0) == obs.size(0), kName,
                "expected {} rows of float_metadata, got {}", obs.size(0), float_metadata.size(0));
  check_device(float_metadata, obs, kName, "float_metadata");
  check_table(obs_type, embed_table, obs, "obs_type", "embed_table");
  check_table(channel, channel_embedding, obs, "channel", "channel_embedding");
  int64_t width = float_metadata.size(1) + embed_table.size(1) + channel_embedding.size(1);
  if (platform_embedding) {
    HALCYON_CHECK(platform.has_value(), kName,
                  "expected platform ids beside platform_embedding, got none");
    check_table(*platform, *platform_embedding, obs, "platform", "platform_embedding");
    width += platform_embedding->size(1);
  }
  check_floating(weight1, 2, kName, "weight1");
  const int64_t hidden = weight1.size(0);
  HALCYON_CHECK(hidden > 0, kName, "expected a hidden width of 1 or more, got 0");
  check_matrix(weight1, hidden, width, obs, "weight1");
  check_vector(bias1, hidden, obs, "bias1");
  check_vector(norm_weight, hidden, obs, "norm_weight");
  check_vector(norm_bias, hidden, obs, "norm_bias");
  check_matrix(weight2, -1, hidden, obs, "weight2");
  HALCYON_CHECK(weight2.size(0) > 0 && weight2.size(0) % 2 == 0, kName,
                "expected weight2 of 2 * out rows, got {}", weight2.size(0));
  check_vector(bias2, weight2.size(0), obs, "bias2");
  HALCYON_CHECK(eps >= 0, kName, "expected an eps of 0 or more, got {}", eps);

  film_detail::Inputs in{{obs, float_metadata, weight1, bias1, norm_weight, norm_bias, weight2,
                          bias2, embed_table, channel_embedding},
                         {obs_type, channel},
                         eps};
  if (platform_embedding) {
    in.floats.push_back(*platform_embedding);
    in.ids.push_back(*platform);
  }
  if (!obs.is_cpu() && !obs.is_meta()) {
    film_detail::check_ids(in);
    return film_detail::composed(in);
  }
  using Kernel = at::Tensor(at::TensorList, at::TensorList, double);
  static const auto op = operator_named<Kernel>("halcyon::_film_tokenizer");
  return op.call(in.floats, in.ids, in.eps);
}

}  // namespace halcyon
