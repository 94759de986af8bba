// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "halcyon/state/fields.h"

namespace halcyon::state {

// Scales departures from a climatology to unit variance, one number a variable.
class Normalisation {
 public:
  // The root of the mean square of anomalies (T, V, X) over times and the area of the grid.
  // Error(argument) where a variable has no present value or does not vary.
  static Normalisation fit(const std::vector<Variable>& variables, const Grid& grid,
                           const at::Tensor& anomalies);
  // Known deviations by variable; a variable without one is Error(input) naming it.
  Normalisation(const std::vector<Variable>& variables, const std::map<std::string, double>& sd);

  // (T, V, X) of any floating dtype, which the result keeps.
  at::Tensor apply(const at::Tensor& anomalies) const;
  at::Tensor invert(const at::Tensor& scaled) const;

  std::map<std::string, double> deviations() const;

 private:
  at::Tensor scale_for(const at::Tensor& data, const char* operation) const;

  std::vector<std::string> names_;
  at::Tensor sd_;  // (V, 1) float64
};

}  // namespace halcyon::state
