// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "halcyon/sphere/sparse_matrix.h"

namespace halcyon::verify {

// Optimal interpolation with the sample covariance of training anomalies (Gandin 1963; Daley,
// "Atmospheric Data Analysis", chapter 4), the linear estimate that a learned analysis has to beat:
//   xa = B H' (H B H' + R)^-1 y.
// With lags, y holds the departures of several times and B the covariances between those times,
// C(d) = mean of x(t) x(t - d)' over the training pairs d apart (d = 0 alone is the usual B).
class OptimalInterpolation {
 public:
  // anomalies (T, X) of any floating dtype, without missing values; lags in seconds, ascending from
  // 0. Sums in float64. Error(argument) when no two training times are a lag apart.
  OptimalInterpolation(const at::Tensor& anomalies, const std::vector<int64_t>& times,
                       std::vector<int64_t> lags = {0});

  const std::vector<int64_t>& lags() const { return lags_; }

  // departures (T, L, N): observed minus climatology, a lag's at [:, l]; NaN is missing and leaves
  // the system of its time. h takes fields (X) to the N sites; error_variance (N). Returns the
  // analysed anomaly, float64 (T, X).
  at::Tensor analyse(const SparseMatrix& h, const at::Tensor& error_variance,
                     const at::Tensor& departures) const;

 private:
  std::vector<int64_t> lags_;
  std::map<int64_t, at::Tensor> covariance_;  // C(d), float64 (X, X)
};

}  // namespace halcyon::verify
