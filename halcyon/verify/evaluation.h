// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "halcyon/state/split.h"
#include "halcyon/verify/analyser.h"
#include "halcyon/verify/score_table.h"
#include "halcyon/verify/station_series.h"

// The protocols by which analysers are compared: each sees the same sites, the same observations
// and noise, and is scored on the same times. The first analyser of a list is the reference of the
// differences. What analysers trained on is their business; the truth given here should be of times
// that they did not (DataSplit).
namespace halcyon::verify {

using Analysers = std::vector<Analyser*>;

struct EvaluationOptions {
  BootstrapOptions bootstrap = {};
  uint64_t seed = 0;      // of the simulated noise and of random sites
  double noise_sd = 1.0;  // of simulated observations, in the variable's units
  int64_t random_sites = 150;
};

// Observations made from the truth (one variable, at all of its times) at the network's sites, plus
// noise of noise_sd that is independent in time and space; lagged ones from the earlier of the same
// times. Scored against the truth, area-weighted, over the box (all of the grid without one). The
// network's error variance is taken as noise_sd squared.
ScoreTable evaluate_simulated(const std::string& protocol, const state::Fields& truth,
                              const Network& network, const std::optional<Box>& scored,
                              const Analysers& analysers, const EvaluationOptions& options = {});

// evaluate_simulated at the sites of real stations: "simulated at stations".
ScoreTable evaluate_simulated_cities(const state::Fields& truth, const StationSeries& stations,
                                     const Box& scored, const Analysers& analysers,
                                     const EvaluationOptions& options = {});

// evaluate_simulated at random_sites places uniform in longitude and latitude within sites, scored
// on the whole grid: "simulated at random sites".
ScoreTable evaluate_simulated_random(const state::Fields& truth, const Box& sites,
                                     const Analysers& analysers,
                                     const EvaluationOptions& options = {});

// Real reports split by day: those of the even days of the year (1 January is day 1) give each
// station's bias against the truth (one a month and hour) and its error variance; on the odd days,
// with the bias taken off, each station in turn is withheld and predicted from the others by the
// analysis at its place. Score: the mean over stations of the RMSE of prediction minus report.
class RealObservations {
 public:
  // The truth's times from start until before end are used; reports that the series lacks there are
  // missing. Error(argument) when a station has no report on even or on odd days.
  RealObservations(const state::Fields& truth, const StationSeries& series,
                   const state::Interval& period);

  const Network& network() const { return network_; }  // with the error variances
  const std::vector<int64_t>& times() const { return odd_; }
  // Bias-corrected reports, float64 (times, L, N); NaN where missing.
  at::Tensor values(const std::vector<int64_t>& lags) const;
  // The truth itself as a predictor of the withheld reports: its mean RMSE.
  double truth_rmse() const { return truth_rmse_; }

 private:
  Network network_;
  std::vector<int64_t> all_, odd_;
  at::Tensor corrected_;  // (all, N)
  double truth_rmse_ = 0;
};

// "real, leave one station out"
ScoreTable evaluate_real_leave_one_out(const RealObservations& observations, const Grid& grid,
                                       const std::string& units, const Analysers& analysers,
                                       const EvaluationOptions& options = {});

}  // namespace halcyon::verify
