// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "halcyon/training/random.h"

// More training fields than there are in the record: random combinations of anomalies (departures
// from climatology) whose covariance is that of the record, localised.
namespace halcyon::training {

// One draw of a smooth random field on the sphere at points lon, lat (degrees, (X,)): float64 (X,)
// with mean 0, variance 1 and correlation exp(-(d/length)^2 / 2), d the chord in km between two
// points. A sum of random plane waves in space (random Fourier features; Rahimi and Recht 2007), so
// that no matrix is needed; `waves` of them make it nearly Gaussian.
at::Tensor random_field(const at::Tensor& lon, const at::Tensor& lat, double length_km,
                        Random& random, int64_t waves = 64);

struct MixtureOptions {
  double length_km = 1500;  // of localisation; 0: none, one coefficient a field
  double amplitude = 0.2;   // the whole is scaled by exp(amplitude x normal); 0: not
};

// Sum over k of u_k(s) x_k(s) / sqrt(K), with K anomaly windows x (K, ..., X) and independent
// random_field()s u_k, the same for every leading dimension (frames, variables) of a window: over
// the draws, its covariance is the sample covariance of the windows times the correlation of
// random_field. Without localisation u is a random direction, sum of squares K, so that K = 1 is
// the window itself or its negative, and K = 2 a x_1 + b x_2 with a^2 + b^2 = 1. Returns (..., X)
// in the dtype of windows.
at::Tensor mixture(const at::Tensor& windows, const at::Tensor& lon, const at::Tensor& lat,
                   const MixtureOptions& options, Random& random);

// For Random::weighted: how well each time suits a day of the year, exp(-(difference / width)^2 /
// 2) around the circle of the year.
std::vector<double> seasonal_weights(const std::vector<int64_t>& times, double day_of_year,
                                     double width_days);

}  // namespace halcyon::training
