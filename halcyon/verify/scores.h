// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace halcyon::verify {

// Over all present pairs, weighted: error = predicted - truth.
struct Score {
  double rmse = 0, bias = 0, mae = 0;
  double correlation = 0;  // of the weighted values, means removed; NaN where one does not vary
  int64_t count = 0;       // pairs
};

// predicted and truth (T, X) of any floating dtype, weights (X) not negative (area_weights() times
// a mask). Pairs with a NaN are left out; Error(argument) when none is left.
Score score(const at::Tensor& predicted, const at::Tensor& truth, const at::Tensor& weights);

// The weighted mean square error of each time, float64 (T); NaN where a time has no present pair.
at::Tensor mean_square_by_time(const at::Tensor& predicted, const at::Tensor& truth,
                               const at::Tensor& weights);

// In observation space: observed minus background (O-B) and observed minus analysis (O-A).
struct Departures {
  std::string station;
  int64_t count = 0;
  double mean_ob = 0, rms_ob = 0, mean_oa = 0, rms_oa = 0;
};

// observed, background, analysis (N), station (N) names: one entry a station in alphabetical order,
// then "all". Rows with a NaN in any of the three are left out.
std::vector<Departures> departures_by_station(const std::vector<std::string>& station,
                                              const at::Tensor& observed,
                                              const at::Tensor& background,
                                              const at::Tensor& analysis);

}  // namespace halcyon::verify
