// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/seasonal_ensemble.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"

namespace halcyon::assimilation {

namespace {

constexpr double kEarthRadius = 6371;  // km
constexpr double kYear = 365.25;

// exp(-(d / length)^2 / 2) between the grid's points, float64 (X, X).
at::Tensor taper(const LatLonGrid& grid, double length) {
  auto [lon, lat] = grid.points();
  lon = lon * (std::numbers::pi / 180);
  lat = lat * (std::numbers::pi / 180);
  const auto xyz = at::stack({lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()}, 1);
  const auto distance = at::matmul(xyz, xyz.t()).clamp(-1, 1).acos() * (kEarthRadius / length);
  return (distance.square() * -0.5).exp();
}

// A square root of the correlation, its small modes left out: rows @ normal numbers.
at::Tensor modes_of(const at::Tensor& correlation) {
  constexpr double kSmallest = 1e-3;  // of the largest eigenvalue
  const auto [values, vectors] = at::linalg_eigh(correlation);
  const auto kept = (values > values.max() * kSmallest).nonzero().flatten();
  auto modes = vectors.index_select(1, kept) * values.index_select(0, kept).sqrt();
  modes = modes / modes.square().sum(1, true).sqrt();  // unit variance everywhere
  return modes.t().to(at::kFloat).contiguous();
}

}  // namespace

SeasonalEnsemble::SeasonalEnsemble(const LatLonGrid& grid, const std::vector<int64_t>& times,
                                   const at::Tensor& anomalies, SeasonalEnsembleOptions options)
    : options_(std::move(options)), points_(grid.size()) {
  const auto ages = static_cast<int64_t>(options_.ages.size());
  HALCYON_CHECK(anomalies.dim() == 2 && anomalies.size(1) == points_ &&
                    anomalies.size(0) == static_cast<int64_t>(times.size()),
                "SeasonalEnsemble", "expected anomalies ({}, {}), got rank {} with {} elements",
                times.size(), points_, anomalies.dim(), anomalies.numel());
  std::vector<int64_t> rows;  // of every age of every window
  for (const int64_t time : times) {
    const auto before = rows.size();
    for (const int64_t age : options_.ages) {
      const auto found = std::lower_bound(times.begin(), times.end(), time - age);
      if (found != times.end() && *found == time - age) rows.push_back(found - times.begin());
    }
    if (rows.size() - before == options_.ages.size()) {
      times_.push_back(time);
    } else {
      rows.resize(before);
    }
  }
  HALCYON_CHECK(!times_.empty(), "SeasonalEnsemble",
                "expected a time with all {} ages before it, got none", ages);
  windows_ = anomalies.to(at::kFloat)
                 .index_select(0, at::tensor(rows, at::kLong))
                 .view({static_cast<int64_t>(times_.size()), ages * points_});

  const auto correlation = taper(grid, options_.localisation_km);
  modes_ = modes_of(correlation);
  const auto rho = correlation.to(at::kFloat).view({1, points_, 1, points_});
  for (int64_t s = 0; s < options_.seasons; ++s) {
    const double centre =
        (static_cast<double>(s) + 0.15) * kYear / static_cast<double>(options_.seasons);
    std::vector<double> weights;
    for (const int64_t time : times_) {
      double days = std::abs(day_of_year(time) - centre);
      days = std::min(days, kYear - days) / options_.season_days;
      weights.push_back(std::exp(-0.5 * days * days));
    }
    const auto w = at::tensor(weights, at::kDouble);
    const auto root = (w / w.sum()).sqrt().to(at::kFloat).unsqueeze(1);
    const auto scaled = windows_ * root;
    auto covariance = at::matmul(scaled.t(), scaled);
    covariance.view({ages, points_, ages, points_}).mul_(rho);
    covariance_.push_back(covariance);
    const auto sums = (w / w.sum()).cumsum(0);
    cumulative_.emplace_back(sums.const_data_ptr<double>(),
                             sums.const_data_ptr<double>() + sums.numel());
  }
}

int64_t SeasonalEnsemble::pick(training::Random& random, int64_t season) const {
  const auto& sums = cumulative_.at(season);
  const auto found = std::upper_bound(sums.begin(), sums.end(), random.uniform());
  return std::min<int64_t>(found - sums.begin(), windows() - 1);
}

int64_t SeasonalEnsemble::draw_time(training::Random& random, int64_t season) const {
  return times_[pick(random, season)];
}

std::pair<int64_t, at::Tensor> SeasonalEnsemble::window(int64_t index) const {
  return {times_.at(index), windows_[index]};
}

at::Tensor SeasonalEnsemble::draw(training::Random& random, int64_t season, int64_t count) const {
  const int64_t fields = count * options_.mixture;
  auto normal = at::empty({fields, modes_.size(0)});
  auto* n = normal.mutable_data_ptr<float>();
  for (int64_t i = 0; i < normal.numel(); ++i) n[i] = static_cast<float>(random.normal());
  const auto tapers = at::matmul(normal, modes_);  // (fields, X)
  auto out = at::zeros({count, windows_.size(1)});
  const int64_t ages = windows_.size(1) / points_;
  for (int64_t i = 0; i < count; ++i) {
    const auto scale = static_cast<float>(std::exp(options_.amplitude * random.normal()) /
                                          std::sqrt(static_cast<double>(options_.mixture)));
    auto* result = out.mutable_data_ptr<float>() + i * ages * points_;
    for (int64_t k = 0; k < options_.mixture; ++k) {
      const auto* x = windows_.const_data_ptr<float>() + pick(random, season) * ages * points_;
      const auto* u = tapers.const_data_ptr<float>() + (i * options_.mixture + k) * points_;
      for (int64_t a = 0; a < ages; ++a) {
        for (int64_t p = 0; p < points_; ++p)
          result[a * points_ + p] += scale * u[p] * x[a * points_ + p];
      }
    }
  }
  return out;
}

}  // namespace halcyon::assimilation
