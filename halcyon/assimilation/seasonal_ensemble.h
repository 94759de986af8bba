// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "halcyon/sphere/latlon.h"
#include "halcyon/training/random.h"

namespace halcyon::assimilation {

struct SeasonalEnsembleOptions {
  std::vector<int64_t> ages = {0};  // of the frames of a window, seconds before its time, ascending
  double localisation_km = 1500;    // length of the taper exp(-(d / L)^2 / 2)
  double season_days = 40;          // width of a season's Gaussian weights
  int64_t seasons = 4;
  int64_t mixture = 8;      // fields in a mixture
  double amplitude = 0.15;  // standard deviation of the logarithm of a sample's scale
};

// The statistics of one year of anomalies, made fit to train on. A year holds few independent maps,
// so truths are drawn as mixtures sum_k u_k(s) x_k(s, t) / sqrt(K) of windows x_k of a season, each
// under a Gaussian random field u_k with the taper as its correlation. Their covariance is the
// Schur product of the season's sample covariance with the taper, as in a localised ensemble
// analysis (Houtekamer and Mitchell 2001, Mon. Wea. Rev. 129), without the noise of far
// correlations.
class SeasonalEnsemble {
 public:
  // anomalies (T, X) on the grid at the times (ascending). A window needs all its ages among them.
  // Throws Error(argument) where sizes disagree or there is no window.
  SeasonalEnsemble(const LatLonGrid& grid, const std::vector<int64_t>& times,
                   const at::Tensor& anomalies, SeasonalEnsembleOptions options);

  int64_t seasons() const { return static_cast<int64_t>(cumulative_.size()); }
  int64_t points() const { return points_; }
  int64_t windows() const { return windows_.size(0); }
  // The time of a window of the season.
  int64_t draw_time(training::Random& random, int64_t season) const;
  // (count, ages * X) float32, age slowest.
  at::Tensor draw(training::Random& random, int64_t season, int64_t count) const;
  // The window as it was, (ages * X), with its time.
  std::pair<int64_t, at::Tensor> window(int64_t index) const;
  // The localised covariance of a season, (ages * X, ages * X) float32.
  const at::Tensor& covariance(int64_t season) const { return covariance_.at(season); }

 private:
  int64_t pick(training::Random& random, int64_t season) const;

  SeasonalEnsembleOptions options_;
  int64_t points_;
  std::vector<int64_t> times_;                   // of the windows
  at::Tensor windows_;                           // (W, ages * X) float32
  std::vector<std::vector<double>> cumulative_;  // of each season, over the windows
  at::Tensor modes_;                             // (modes, X) float32: u = normal @ modes
  std::vector<at::Tensor> covariance_;
};

}  // namespace halcyon::assimilation
