// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "halcyon/state/climatology.h"
#include "halcyon/verify/optimal_interpolation.h"

namespace halcyon::verify {

// The sites that report: names (N), lon and lat in degrees, error variance in units squared,
// float64 (N).
struct Network {
  std::vector<std::string> stations;
  at::Tensor lon, lat, error_variance;

  int64_t size() const { return static_cast<int64_t>(stations.size()); }
  Network without(int64_t station) const;
};

// Whatever makes an analysis of one variable from the reports of a network: what the protocols of
// evaluation.h compare. It must not look at the truth of the times that it is asked for.
class Analyser {
 public:
  virtual ~Analyser() = default;
  virtual std::string name() const = 0;
  // Seconds before the analysis time at which it wants observations, ascending from 0.
  virtual std::vector<int64_t> lags() const { return {0}; }
  // values (T, L, N), float64 physical units (bias-corrected), NaN where missing: [t, l] was
  // observed at times[t] - lags()[l]. Returns the analyses on the truth's grid in the same units,
  // float64 (T, X).
  virtual at::Tensor analyse(const Network& network, const at::Tensor& values,
                             const std::vector<int64_t>& times) = 0;
};

// The climatology, whatever is observed.
class ClimatologyAnalyser : public Analyser {
 public:
  // Of one variable: Error(argument) otherwise.
  explicit ClimatologyAnalyser(std::shared_ptr<const state::Climatology> climatology);
  std::string name() const override { return "climatology"; }
  at::Tensor analyse(const Network& network, const at::Tensor& values,
                     const std::vector<int64_t>& times) override;

 private:
  std::shared_ptr<const state::Climatology> climatology_;
};

// The departure of some time ago, known without error, on top of the climatology; NaN where fields
// do not hold that time.
class PersistenceAnalyser : public Analyser {
 public:
  // fields on the climatology's variable and grid; age in seconds.
  PersistenceAnalyser(std::shared_ptr<const state::Climatology> climatology,
                      const state::Fields& fields, int64_t age);
  std::string name() const override;
  at::Tensor analyse(const Network& network, const at::Tensor& values,
                     const std::vector<int64_t>& times) override;

 private:
  std::shared_ptr<const state::Climatology> climatology_;
  std::vector<int64_t> times_;
  at::Tensor departures_;  // (times_, X) float64
  int64_t age_;
};

// Optimal interpolation around the climatology; its covariances are those of the training fields'
// departures.
class OptimalInterpolationAnalyser : public Analyser {
 public:
  OptimalInterpolationAnalyser(std::shared_ptr<const state::Climatology> climatology,
                               const state::Fields& training, std::vector<int64_t> lags = {0});
  std::string name() const override;
  std::vector<int64_t> lags() const override { return interpolation_.lags(); }
  at::Tensor analyse(const Network& network, const at::Tensor& values,
                     const std::vector<int64_t>& times) override;

 private:
  std::shared_ptr<const state::Climatology> climatology_;
  OptimalInterpolation interpolation_;
};

// H of the network on a latitude-longitude grid or a region: bilinear, (N, X).
SparseMatrix observation_operator(const Grid& grid, const Network& network);

}  // namespace halcyon::verify
