// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/seasonal_ensemble.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "tests/support/compare.h"

namespace halcyon::assimilation {
namespace {

using test::identical;
using test::near;
using training::Random;

constexpr int64_t kStep = 21600;
constexpr double kSinglePrecision = 2e-5;

LatLonGrid grid() {
  return LatLonGrid({50, 40, 30}, {240, 252, 264, 276});
}

// A year of noise whose variance is nine times larger in its first half.
struct Year {
  std::vector<int64_t> times;
  at::Tensor anomalies;
};
Year year() {
  at::manual_seed(5);
  Year y;
  for (int64_t t = parse_time("2013-01-01"); t < parse_time("2014-01-01"); t += kStep)
    y.times.push_back(t);
  const auto count = static_cast<int64_t>(y.times.size());
  auto mixed = at::randn({count, 12});
  for (int64_t x = 1; x < 12; ++x) mixed.select(1, x) += 0.7 * mixed.select(1, x - 1);
  for (int64_t t = 1; t < count; ++t) mixed[t] += 0.6 * mixed[t - 1];
  mixed.slice(0, 0, count / 2) *= 3;
  y.anomalies = mixed;
  return y;
}

// The taper of the header between the points of the grid, from the haversine of their distance.
at::Tensor taper(double length) {
  const auto [lon, lat] = grid().points();
  auto out = at::empty({12, 12}, at::kDouble);
  for (int64_t i = 0; i < 12; ++i) {
    for (int64_t j = 0; j < 12; ++j) {
      const auto radians = [](const at::Tensor& x) {
        return x.item<double>() * std::numbers::pi / 180;
      };
      const double a = radians(lat[i]), b = radians(lat[j]),
                   turn = radians(lon[i]) - radians(lon[j]);
      const double h = std::pow(std::sin((a - b) / 2), 2) +
                       std::cos(a) * std::cos(b) * std::pow(std::sin(turn / 2), 2);
      const double distance = 2 * 6371 * std::asin(std::sqrt(h));
      out[i][j] = std::exp(-0.5 * std::pow(distance / length, 2));
    }
  }
  return out;
}

// Seasons so wide that every window weighs the same.
SeasonalEnsembleOptions one_season() {
  SeasonalEnsembleOptions options;
  options.ages = {0, kStep};
  options.season_days = 1e6;
  options.seasons = 1;
  options.amplitude = 0;
  return options;
}

at::Tensor localised(const Year& y, double length) {
  const auto windows =
      at::cat({y.anomalies.slice(0, 1), y.anomalies.slice(0, 0, y.anomalies.size(0) - 1)}, 1)
          .to(at::kDouble);
  const auto sample = at::matmul(windows.t(), windows) / static_cast<double>(windows.size(0));
  return sample * taper(length).repeat({2, 2});
}

TEST(SeasonalEnsemble, CovarianceIsTheLocalisedSampleCovariance) {
  const auto y = year();
  const SeasonalEnsemble ensemble(grid(), y.times, y.anomalies, one_season());
  EXPECT_EQ(ensemble.points(), 12);
  EXPECT_EQ(ensemble.seasons(), 1);
  EXPECT_EQ(ensemble.windows(), static_cast<int64_t>(y.times.size()) - 1);
  EXPECT_TRUE(near(ensemble.covariance(0), localised(y, 1500), kSinglePrecision));
}

TEST(SeasonalEnsemble, DrawsHaveTheCovariance) {
  const auto y = year();
  const SeasonalEnsemble ensemble(grid(), y.times, y.anomalies, one_season());
  constexpr int64_t kDraws = 60'000;
  Random random(11);
  const auto draws = ensemble.draw(random, 0, kDraws).to(at::kDouble);
  ASSERT_EQ(draws.sizes(), (std::vector<int64_t>{kDraws, 24}));
  const auto sample = at::matmul(draws.t(), draws) / static_cast<double>(kDraws);
  const auto expected = ensemble.covariance(0).to(at::kDouble);
  // errors of a sample covariance, in units of sqrt(C_ii C_jj), are about sqrt(2 / draws); mixtures
  // have somewhat heavier tails
  const auto scale = expected.diagonal().sqrt();
  const auto error = ((sample - expected) / at::outer(scale, scale)).abs().max().item<double>();
  EXPECT_LT(error, 6 * std::sqrt(2.0 / kDraws));
  EXPECT_LT(draws.mean(0).abs().div(scale).max().item<double>(), 5 / std::sqrt(kDraws));
}

TEST(SeasonalEnsemble, AmplitudeVariesTheScale) {
  const auto y = year();
  auto options = one_season();
  options.amplitude = 0.3;
  const SeasonalEnsemble ensemble(grid(), y.times, y.anomalies, options);
  Random random(12);
  const auto variance = ensemble.draw(random, 0, 40'000).square().mean(0);
  const auto ratio = (variance / ensemble.covariance(0).diagonal()).mean().item<double>();
  EXPECT_NEAR(ratio, std::exp(2 * 0.3 * 0.3), 0.04);  // mean square of a log-normal scale
}

TEST(SeasonalEnsemble, SeasonsDiffer) {
  const auto y = year();
  auto options = one_season();
  options.seasons = 4;
  options.season_days = 20;
  const SeasonalEnsemble ensemble(grid(), y.times, y.anomalies, options);
  ASSERT_EQ(ensemble.seasons(), 4);
  double least = 1e9, most = 0;
  for (int64_t s = 0; s < 4; ++s) {
    const auto variance = ensemble.covariance(s).diagonal().mean().item<double>();
    least = std::min(least, variance);
    most = std::max(most, variance);
    Random random(s + 1);
    double c = 0, sn = 0;
    constexpr int kTimes = 2000;
    for (int i = 0; i < kTimes; ++i) {
      const double turn =
          2 * std::numbers::pi * day_of_year(ensemble.draw_time(random, s)) / 365.25;
      c += std::cos(turn) / kTimes;
      sn += std::sin(turn) / kTimes;
    }
    const double width =
        365.25 / (2 * std::numbers::pi) * std::sqrt(-2 * std::log(std::hypot(c, sn)));
    EXPECT_NEAR(width, 20, 2) << "season " << s;  // circular standard deviation, days
  }
  EXPECT_GT(most, 4 * least);
}

TEST(SeasonalEnsemble, DrawsFollowTheSeed) {
  const auto y = year();
  const SeasonalEnsemble ensemble(grid(), y.times, y.anomalies, one_season());
  Random a(3), b(3), c(4);
  const auto first = ensemble.draw(a, 0, 5);
  EXPECT_TRUE(identical(ensemble.draw(b, 0, 5), first));
  EXPECT_FALSE(ensemble.draw(a, 0, 5).equal(first));
  EXPECT_FALSE(ensemble.draw(c, 0, 5).equal(first));
}

TEST(SeasonalEnsemble, WindowsNeedAllTheirAges) {
  auto y = year();
  // a hole: the time after it has no earlier field
  y.times.erase(y.times.begin() + 10);
  y.anomalies = at::cat({y.anomalies.slice(0, 0, 10), y.anomalies.slice(0, 11)});
  const SeasonalEnsemble ensemble(grid(), y.times, y.anomalies, one_season());
  EXPECT_EQ(ensemble.windows(), static_cast<int64_t>(y.times.size()) - 2);
  const auto [time, window] = ensemble.window(0);
  EXPECT_EQ(time, y.times[1]);
  EXPECT_TRUE(identical(window.slice(0, 0, 12), y.anomalies[1]));
  EXPECT_TRUE(identical(window.slice(0, 12), y.anomalies[0]));
  EXPECT_EQ(ensemble.window(9).first, y.times[11]);
}

TEST(SeasonalEnsemble, RefusesWhatDoesNotFit) {
  const auto y = year();
  auto options = one_season();
  EXPECT_THROW(SeasonalEnsemble(grid(), y.times, y.anomalies.slice(0, 1), options), Error);
  EXPECT_THROW(SeasonalEnsemble(grid(), y.times, y.anomalies.slice(1, 1), options), Error);
  options.ages = {0, 5};
  EXPECT_THROW(SeasonalEnsemble(grid(), y.times, y.anomalies, options), Error);
}

}  // namespace
}  // namespace halcyon::assimilation
