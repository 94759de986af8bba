// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/normalisation.h"

#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/state/area.h"

namespace halcyon::state {

Normalisation Normalisation::fit(const std::vector<Variable>& variables, const Grid& grid,
                                 const at::Tensor& anomalies) {
  constexpr const char* operation = "Normalisation::fit";
  HALCYON_CHECK(anomalies.dim() == 3 &&
                    anomalies.size(1) == static_cast<int64_t>(variables.size()) &&
                    anomalies.size(2) == size_of(grid),
                operation, "expected anomalies (time, {}, {})", variables.size(), size_of(grid));
  const at::Tensor values = anomalies.to(at::kDouble), present = values.isnan().logical_not();
  const at::Tensor weights = area_weights(grid) * present;
  const at::Tensor squares = values.nan_to_num().square();
  const std::vector<int64_t> times_and_points = {0, 2};
  const at::Tensor sd = ((squares * weights).sum(times_and_points) / weights.sum(times_and_points))
                            .sqrt()
                            .contiguous();
  std::map<std::string, double> deviations;
  for (std::size_t v = 0; v < variables.size(); ++v) {
    const double one = sd.const_data_ptr<double>()[v];
    HALCYON_CHECK(std::isfinite(one) && one > 0, operation, "expected {} to vary, got deviation {}",
                  variables[v].name, one);
    deviations[variables[v].name] = one;
  }
  return Normalisation(variables, deviations);
}

Normalisation::Normalisation(const std::vector<Variable>& variables,
                             const std::map<std::string, double>& sd)
    : sd_(at::empty({static_cast<int64_t>(variables.size()), 1}, at::kDouble)) {
  double* out = sd_.mutable_data_ptr<double>();
  for (const auto& variable : variables) {
    const auto found = sd.find(variable.name);
    HALCYON_CHECK_KIND(found != sd.end(), input, "Normalisation",
                       "expected a standard deviation for {}, got none", variable.name);
    HALCYON_CHECK_KIND(std::isfinite(found->second) && found->second > 0, input, "Normalisation",
                       "expected a standard deviation above 0 for {}, got {}", variable.name,
                       found->second);
    names_.push_back(variable.name);
    *out++ = found->second;
  }
}

at::Tensor Normalisation::scale_for(const at::Tensor& data, const char* operation) const {
  HALCYON_CHECK(data.is_floating_point() && data.dim() >= 2 && data.size(-2) == sd_.size(0),
                operation, "expected floating-point (..., {}, X), got rank {}", sd_.size(0),
                data.dim());
  return sd_.to(data.options());
}

at::Tensor Normalisation::apply(const at::Tensor& anomalies) const {
  return anomalies / scale_for(anomalies, "Normalisation::apply");
}

at::Tensor Normalisation::invert(const at::Tensor& scaled) const {
  return scaled * scale_for(scaled, "Normalisation::invert");
}

std::map<std::string, double> Normalisation::deviations() const {
  std::map<std::string, double> out;
  for (std::size_t v = 0; v < names_.size(); ++v) out[names_[v]] = sd_.const_data_ptr<double>()[v];
  return out;
}

}  // namespace halcyon::state
