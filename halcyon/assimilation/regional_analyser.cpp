// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/regional_analyser.h"

#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/base/error.h"

namespace halcyon::assimilation {
namespace {

HealDA prepared(HealDA model) {
  model->prepare_inference();
  return model;
}

}  // namespace

RegionalAnalyser::RegionalAnalyser(std::shared_ptr<const RegionalSystem> system, HealDA model)
    : system_(std::move(system)), model_(*system_, prepared(std::move(model))) {}

at::Tensor RegionalAnalyser::analyse(const verify::Network& network, const at::Tensor& values,
                                     const std::vector<int64_t>& times) {
  const auto count = network.size(), lags_count = static_cast<int64_t>(system_->ages.size());
  HALCYON_CHECK(values.dim() == 3 && values.size(0) == static_cast<int64_t>(times.size()) &&
                    values.size(1) == lags_count && values.size(2) == count,
                "analyse", "expected values ({}, {}, {}), got rank {}", times.size(), lags_count,
                count, values.dim());
  const auto to_sites = bilinear_to_points(system_->grid, network.lon, network.lat);
  const auto spread = to_sites.apply(system_->spread).to(at::kFloat);
  const auto error = network.error_variance.sqrt().to(at::kFloat);
  std::vector<DepartureSet> batch;
  for (std::size_t t = 0; t < times.size(); ++t) {
    auto& set = batch.emplace_back(DepartureSet{times[t], {}});
    for (int64_t lag = 0; lag < lags_count; ++lag) {
      const auto climatology =
          to_sites.apply(system_->climatology.at(times[t] - system_->ages[lag])[0]);
      const auto departures = (values[static_cast<int64_t>(t)][lag] - climatology).to(at::kFloat);
      for (int64_t i = 0; i < count; ++i) {
        const auto value = departures.const_data_ptr<float>()[i];
        if (std::isnan(value)) continue;
        set.observations.push_back(
            {network.lat.const_data_ptr<double>()[i], network.lon.const_data_ptr<double>()[i],
             value, error.const_data_ptr<float>()[i], spread.const_data_ptr<float>()[i],
             static_cast<float>(system_->ages[lag]) / 3600});
      }
    }
  }
  const auto climatology = system_->climatology.at(times).select(1, 0);
  return climatology + model_.analyse(batch).to(at::kDouble);
}

}  // namespace halcyon::assimilation
