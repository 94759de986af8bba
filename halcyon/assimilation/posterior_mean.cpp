// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/posterior_mean.h"

#include <ATen/ATen.h>

#include "halcyon/base/error.h"

namespace halcyon::assimilation {

at::Tensor posterior_mean(const at::Tensor& covariance, const SparseMatrix& sites,
                          const std::vector<Report>& reports, const at::Tensor& departures) {
  const auto& h = sites.data();
  const int64_t points = h.columns, size = covariance.size(0);
  const auto count = static_cast<int64_t>(reports.size());
  HALCYON_CHECK(departures.dim() == 2 && departures.size(1) == count, "posterior_mean",
                "expected departures (N, {}), got rank {}", count, departures.dim());
  if (count == 0) return at::zeros({departures.size(0), points});

  // rows of H B, then (H B) H' + R
  auto rows = at::zeros({count, size});
  const auto* b = covariance.const_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    auto* row = rows.mutable_data_ptr<float>() + i * size;
    const auto& report = reports[i];
    for (int64_t e = h.row_start[report.site]; e < h.row_start[report.site + 1]; ++e) {
      const auto weight = static_cast<float>(h.weight[e]);
      const auto* source = b + (report.age * points + h.column[e]) * size;
      for (int64_t p = 0; p < size; ++p) row[p] += weight * source[p];
    }
  }
  auto innovation = at::empty({count, count});
  for (int64_t i = 0; i < count; ++i) {
    const auto* row = rows.const_data_ptr<float>() + i * size;
    auto* out = innovation.mutable_data_ptr<float>() + i * count;
    for (int64_t j = 0; j < count; ++j) {
      const auto& report = reports[j];
      float sum = i == j ? report.error_variance : 0.0f;
      for (int64_t e = h.row_start[report.site]; e < h.row_start[report.site + 1]; ++e) {
        sum += static_cast<float>(h.weight[e]) * row[report.age * points + h.column[e]];
      }
      out[j] = sum;
    }
  }
  const auto factor = at::linalg_cholesky(innovation);
  const auto weights = at::cholesky_solve(departures.t(), factor);  // (reports, N)
  return at::matmul(weights.t(), rows.slice(1, 0, points));
}

}  // namespace halcyon::assimilation
