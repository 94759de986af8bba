// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace halcyon::verify {

struct Estimate {
  double value = 0, low = 0, high = 0;
};

// Days (UTC) are drawn with replacement in whole blocks, so that what is correlated within a block,
// the hours of a day and a passing weather system, is not counted as independent.
struct BootstrapOptions {
  int64_t resamples = 1000;
  int64_t block_days = 5;
  double confidence = 0.95;
  uint64_t seed = 1;
};

// squared (T, K): squared errors at T times of K series, each with its own RMSE (stations), or of
// one (a field's mean square by time); NaN is missing. The value is the mean of the K RMSEs, the
// interval that of the resampled values' percentiles. Error(argument) when a series has no value.
Estimate mean_rmse(const at::Tensor& squared, const std::vector<int64_t>& times,
                   const BootstrapOptions& options = {});

// mean_rmse of a minus that of b, with the same days drawn for both: an interval below zero says
// that a is better.
Estimate mean_rmse_difference(const at::Tensor& a, const at::Tensor& b,
                              const std::vector<int64_t>& times,
                              const BootstrapOptions& options = {});

}  // namespace halcyon::verify
