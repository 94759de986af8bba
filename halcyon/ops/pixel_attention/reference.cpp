// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/ops/pixel_attention/offsets.h"
#include "halcyon/ops/pixel_attention/pixel_attention.h"

namespace halcyon {

at::Tensor pixel_attention_reference(const at::Tensor& Q, const at::Tensor& tokens,
                                     const at::Tensor& W_k, const at::Tensor& W_v,
                                     const at::Tensor& cu_seqlens_k, int64_t n_kv_heads,
                                     double scale, const std::optional<at::Tensor>& B_v) {
  const auto queries = Q.detach().to(at::kDouble).contiguous();
  const auto rows = tokens.detach().to(at::kDouble);
  auto keys = at::matmul(rows, W_k.detach().to(at::kDouble).t()).contiguous();
  auto values = at::matmul(rows, W_v.detach().to(at::kDouble).t());
  if (B_v) values = values + B_v->detach().to(at::kDouble);
  values = values.contiguous();
  const auto offsets = host_offsets(cu_seqlens_k, "pixel_attention_reference");

  const int64_t pixels = Q.size(0), heads = Q.size(1), width = Q.size(2);
  const int64_t kv_width = n_kv_heads * width, heads_per_kv = heads / n_kv_heads;
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  auto out = at::zeros_like(queries);
  for (int64_t p = 0; p < pixels; ++p) {
    const int64_t begin = offset[p], count = offset[p + 1] - begin;
    for (int64_t h = 0; h < heads && count > 0; ++h) {
      const double* q = queries.const_data_ptr<double>() + (p * heads + h) * width;
      const int64_t column = begin * kv_width + h / heads_per_kv * width;
      const double* k = keys.const_data_ptr<double>() + column;
      const double* v = values.const_data_ptr<double>() + column;
      std::vector<double> weight(count);
      for (int64_t j = 0; j < count; ++j) {
        for (int64_t c = 0; c < width; ++c) weight[j] += scale * q[c] * k[j * kv_width + c];
      }
      const double largest = *std::max_element(weight.begin(), weight.end());
      double sum = 0;
      for (double& w : weight) sum += w = std::exp(w - largest);
      double* o = out.mutable_data_ptr<double>() + (p * heads + h) * width;
      for (int64_t j = 0; j < count; ++j) {
        for (int64_t c = 0; c < width; ++c) o[c] += weight[j] / sum * v[j * kv_width + c];
      }
    }
  }
  return out.to(Q.scalar_type());
}

}  // namespace halcyon
