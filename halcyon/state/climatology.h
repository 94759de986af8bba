// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "halcyon/state/fields.h"

namespace halcyon::state {

// The mean annual and daily cycle at every point: for each hour of the day that the training fields
// hold, a least-squares fit of
//   c0 + c1 cos(w d) + c2 sin(w d) + c3 cos(2 w d) + c4 sin(2 w d),   w = 2 pi / period,
// in the day of the year d (1 January is 1).
class Climatology {
 public:
  // Fits the fields of the given times only. Error(argument) for static fields, missing values, or
  // an hour with fewer than 5 fields.
  static Climatology fit(const Fields& fields, const std::vector<int64_t>& times,
                         double period = 365);

  static Climatology load(const std::filesystem::path& path);
  // A safetensors file; written atomically.
  void save(const std::filesystem::path& path) const;

  // float64 (V, X) at any time; between the hours that were fitted, linear in time.
  at::Tensor at(int64_t time) const;
  // float64 (T, V, X).
  at::Tensor at(const std::vector<int64_t>& times) const;
  // Departures of fields on the same variables and grid, float64 (T, V, X).
  at::Tensor anomaly(const Fields& fields) const;

  const std::vector<Variable>& variables() const { return variables_; }
  const Grid& grid() const { return grid_; }
  // Seconds of the day that were fitted, ascending.
  const std::vector<int64_t>& hours() const { return hours_; }

 private:
  Climatology(std::vector<Variable> variables, Grid grid, std::vector<int64_t> hours, double period,
              at::Tensor coefficients);
  at::Tensor at_fitted_hour(int64_t time) const;

  std::vector<Variable> variables_;
  Grid grid_;
  std::vector<int64_t> hours_;
  double period_;
  at::Tensor coefficients_;  // (hours, 5, V, X) float64
};

}  // namespace halcyon::state
