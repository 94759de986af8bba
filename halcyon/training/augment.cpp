// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/augment.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"

namespace halcyon::training {
namespace {

constexpr double kEarthRadiusKm = 6371, kDaysInYear = 365.25;

// (X, 3) unit vectors
at::Tensor unit_vectors(const at::Tensor& lon, const at::Tensor& lat) {
  const at::Tensor a = lon.to(at::kDouble).deg2rad(), b = lat.to(at::kDouble).deg2rad();
  at::Tensor points = at::empty({lon.size(0), 3}, at::kDouble);
  points.select(1, 0).copy_(b.cos() * a.cos());
  points.select(1, 1).copy_(b.cos() * a.sin());
  points.select(1, 2).copy_(b.sin());
  return points;
}

}  // namespace

at::Tensor random_field(const at::Tensor& lon, const at::Tensor& lat, double length_km,
                        Random& random, int64_t waves) {
  HALCYON_CHECK(lon.dim() == 1 && lon.sizes() == lat.sizes(), "random_field",
                "expected lon and lat (X,), got {} and {} dimensions", lon.dim(), lat.dim());
  HALCYON_CHECK(length_km > 0 && waves > 0, "random_field",
                "expected a length and a number of waves above zero, got {} and {}", length_km,
                waves);
  const at::Tensor vectors = random.normal_tensor({3, waves}) * (kEarthRadiusKm / length_km);
  const at::Tensor phases = random.uniform_tensor({waves}) * (2 * std::numbers::pi);
  const at::Tensor amplitudes = random.normal_tensor({waves, 1});
  const at::Tensor angles = unit_vectors(lon, lat).matmul(vectors).add_(phases);
  return angles.cos_()
      .matmul(amplitudes)
      .squeeze(1)
      .mul_(std::sqrt(2 / static_cast<double>(waves)));
}

at::Tensor mixture(const at::Tensor& windows, const at::Tensor& lon, const at::Tensor& lat,
                   const MixtureOptions& options, Random& random) {
  HALCYON_CHECK(windows.dim() >= 2 && windows.size(0) > 0 && lon.dim() == 1 &&
                    windows.size(-1) == lon.size(0),
                "mixture", "expected windows (K, ..., X) and X points, got {} dimensions and {}",
                windows.dim(), lon.numel());
  HALCYON_CHECK(options.length_km >= 0 && options.amplitude >= 0, "mixture",
                "expected a length and an amplitude of at least zero, got {} and {}",
                options.length_km, options.amplitude);
  const int64_t k = windows.size(0);
  at::Tensor coefficients;  // (K, X) or (K, 1), of mean square 1 / K
  if (options.length_km > 0) {
    coefficients = at::empty({k, lon.size(0)}, at::kDouble);
    for (int64_t i = 0; i < k; ++i) {
      coefficients[i].copy_(random_field(lon, lat, options.length_km, random));
    }
    coefficients /= std::sqrt(static_cast<double>(k));
  } else {
    coefficients = random.normal_tensor({k, 1});
    coefficients /= coefficients.norm();
  }
  coefficients *= std::exp(options.amplitude * random.normal());
  coefficients = coefficients.to(windows.options());
  at::Tensor sum = at::zeros(windows.sizes().slice(1), windows.options());
  for (int64_t i = 0; i < k; ++i) sum.addcmul_(windows[i], coefficients[i].expand(lon.size(0)));
  return sum;
}

std::vector<double> seasonal_weights(const std::vector<int64_t>& times, double day, double width) {
  HALCYON_CHECK(width > 0, "seasonal_weights", "expected a width above zero, got {}", width);
  std::vector<double> weights;
  weights.reserve(times.size());
  for (const int64_t time : times) {
    const double apart = std::abs(std::remainder(day_of_year(time) - day, kDaysInYear));
    weights.push_back(std::exp(-0.5 * (apart / width) * (apart / width)));
  }
  return weights;
}

}  // namespace halcyon::training
