// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/augment.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <set>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/time.h"
#include "halcyon/training/simulate_observations.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::training {
namespace {

const at::Tensor kLon = torch::tensor({10.0, 10.0, 30.0, -150.0}, torch::kDouble);
const at::Tensor kLat = torch::tensor({50.0, 60.0, 50.0, -40.0}, torch::kDouble);

// exp(-(d/L)^2/2) with chords d
at::Tensor expected_correlation(double length) {
  const double r = 6371, pi = 3.14159265358979323846;
  at::Tensor rho = torch::empty({4, 4}, torch::kDouble);
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      double p[2][3];
      for (int k = 0; k < 2; ++k) {
        const double a = kLon[k == 0 ? i : j].item<double>() * pi / 180,
                     b = kLat[k == 0 ? i : j].item<double>() * pi / 180;
        p[k][0] = std::cos(b) * std::cos(a);
        p[k][1] = std::cos(b) * std::sin(a);
        p[k][2] = std::sin(b);
      }
      double d2 = 0;
      for (int k = 0; k < 3; ++k) d2 += std::pow(r * (p[0][k] - p[1][k]), 2);
      rho[i][j] = std::exp(-0.5 * d2 / (length * length));
    }
  }
  return rho;
}

TEST(Augment, RandomFieldsHaveTheirCorrelationAndAreNearlyGaussian) {
  Random random(1);
  std::vector<at::Tensor> draws;
  for (int i = 0; i < 4000; ++i) draws.push_back(random_field(kLon, kLat, 1500, random));
  const at::Tensor x = torch::stack(draws);
  const at::Tensor covariance = x.t().matmul(x) / 4000;
  EXPECT_LT((covariance - expected_correlation(1500)).abs().max().item<double>(), 0.07);
  EXPECT_NEAR(x.mean().item<double>(), 0, 0.04);
  EXPECT_NEAR(x.pow(4).mean().item<double>(), 3, 0.3);
}

TEST(Augment, MixturesHaveTheLocalisedSampleCovariance) {
  torch::manual_seed(0);
  const at::Tensor windows = torch::randn({3, 4}, torch::kDouble);
  Random random(2);
  at::Tensor covariance = torch::zeros({4, 4}, torch::kDouble);
  const int n = 4000;
  for (int i = 0; i < n; ++i) {
    const at::Tensor x = mixture(windows, kLon, kLat, {.length_km = 1500, .amplitude = 0}, random);
    covariance += torch::outer(x, x) / n;
  }
  const at::Tensor wanted = windows.t().matmul(windows) / 3 * expected_correlation(1500);
  EXPECT_LT((covariance - wanted).abs().max().item<double>(),
            0.08 * wanted.abs().max().item<double>());
}

TEST(Augment, OneFieldCoefficientsServeAllFramesAndKeepTheType) {
  const at::Tensor one = torch::randn({1, 4, 4}), both = torch::stack({one[0], one[0]});
  Random random(3);
  // all frames of a window equal: so are the frames of the mixture
  const at::Tensor flat = one[0][0].expand({1, 3, 4});
  const at::Tensor x = mixture(flat, kLon, kLat, {}, random);
  EXPECT_EQ(x.sizes(), (at::IntArrayRef{3, 4}));
  EXPECT_EQ(x.scalar_type(), torch::kFloat);
  EXPECT_TRUE(test::identical(x[0], x[2]));
  // without localisation: the window or its negative; a^2 + b^2 = 1
  std::set<double> signs;
  for (int i = 0; i < 20; ++i) {
    const at::Tensor y = mixture(one, kLon, kLat, {.length_km = 0, .amplitude = 0}, random);
    const double sign = (y[0][0] / one[0][0][0]).item<double>();
    EXPECT_NEAR(std::abs(sign), 1, 1e-6);
    signs.insert(std::round(sign));
  }
  EXPECT_EQ(signs.size(), 2u);
  const at::Tensor apart = torch::eye(2, torch::kDouble).repeat({1, 2});
  for (int i = 0; i < 5; ++i) {
    const at::Tensor y = mixture(apart, kLon, kLat, {.length_km = 0, .amplitude = 0}, random);
    EXPECT_NEAR(y.square().sum().item<double>(), 2, 1e-12);
  }
  EXPECT_NO_THROW(mixture(both, kLon, kLat, {}, random));
}

TEST(Augment, SeasonsGoRoundTheYear) {
  const std::vector<int64_t> times{parse_time("2013-12-31"), parse_time("2014-01-10"),
                                   parse_time("2014-07-01")};
  const auto w = seasonal_weights(times, 4, 10);
  EXPECT_NEAR(w[0], std::exp(-0.5 * std::pow(5.25 / 10, 2)), 1e-9);
  EXPECT_NEAR(w[1], std::exp(-0.5 * std::pow(5.0 / 10, 2)), 1e-9);
  EXPECT_LT(w[2], 1e-20);
}

TEST(Augment, RefusesWhatDoesNotFit) {
  Random random(4);
  EXPECT_THROW(random_field(kLon, kLat.slice(0, 1), 100, random), Error);
  EXPECT_THROW(random_field(kLon, kLat, 0, random), Error);
  EXPECT_THROW(mixture(torch::zeros({2, 5}), kLon, kLat, {}, random), Error);
  EXPECT_THROW(mixture(torch::zeros({0, 4}), kLon, kLat, {}, random), Error);
  EXPECT_THROW(seasonal_weights({0}, 1, 0), Error);
}

NetworkOptions stations() {
  NetworkOptions way;
  way.kind = NetworkKind::stations;
  way.station_lon = {-100, -90, -80};
  way.station_lat = {30, 35, 40};
  return way;
}

TEST(Networks, AreDrawnByWeightWithinTheirLimitsAndRepeat) {
  NetworkOptions uniform, clustered;
  uniform.lon = clustered.lon = {200, 330};
  uniform.lat = clustered.lat = {15, 75};
  uniform.count = {10, 20};
  uniform.weight = 3;
  clustered.kind = NetworkKind::clustered;
  clustered.count = {5, 5};
  clustered.varied_probability = 1;
  std::map<NetworkKind, int> seen;
  for (uint64_t i = 0; i < 2000; ++i) {
    Random random(5, {i}), same(5, {i});
    const Network n = draw_network({uniform, clustered}, random);
    ++seen[n.kind];
    EXPECT_EQ(n.lon, draw_network({uniform, clustered}, same).lon);
    ASSERT_EQ(n.lat.size(), n.size());
    ASSERT_EQ(n.error.size(), n.size());
    for (std::size_t k = 0; k < n.size(); ++k) {
      EXPECT_TRUE(n.lon[k] >= 200 && n.lon[k] <= 330 && n.lat[k] >= 15 && n.lat[k] <= 75);
      if (n.kind == NetworkKind::uniform) {
        EXPECT_EQ(n.error[k], 1);
      } else {
        EXPECT_TRUE(n.error[k] >= 0.4 && n.error[k] <= 3);
      }
    }
    if (n.kind == NetworkKind::uniform) {
      EXPECT_TRUE(n.size() >= 10 && n.size() <= 20);
    } else {
      EXPECT_EQ(n.size(), 5u);
    }
  }
  EXPECT_NEAR(seen[NetworkKind::uniform], 1500, 100);
}

TEST(Networks, StationsDropOutButNeverAll) {
  NetworkOptions way = stations();
  Random random(6);
  EXPECT_EQ(draw_network({way}, random).lon, way.station_lon);
  way.drop = {1};
  for (int i = 0; i < 20; ++i) EXPECT_EQ(draw_network({way}, random).size(), 1u);
  way.drop = {0};
  way.jitter = 1;
  way.jitter_probability = 1;
  const Network moved = draw_network({way}, random);
  EXPECT_NE(moved.lon, way.station_lon);
  EXPECT_NEAR(moved.lon[0], -100, 6);
  EXPECT_THROW(draw_network({}, random), Error);
}

TEST(Networks, ComeFromConfiguration) {
  const halcyon::test::TemporaryFolder folder;
  write_text(folder / "s.csv", "id,lat,lon\r\nA, 40.5,-100\r\nB,41,259.25\r\n\r\n");
  write_text(folder / "bad.csv", "lat,lon\n95,3\n");
  const auto parse = [&](const std::string& text) {
    const auto node = config::parse(text, "run.yaml", folder.path());
    NetworkOptions way = network_options(node);
    node.finish();
    return way;
  };
  const auto way = parse("{kind: stations, stations: s.csv, drop: [0, 0.5], error: 1.8}");
  EXPECT_EQ(way.station_lat, (std::vector<double>{40.5, 41}));
  EXPECT_EQ(way.station_lon, (std::vector<double>{-100, 259.25}));
  EXPECT_EQ(way.error, 1.8);
  EXPECT_EQ(parse("{kind: uniform, lat: [15, 75], count: [3, 4]}").count.high, 4);
  EXPECT_THROW(parse("{kind: uniform, lat: [75, 15]}"), Error);
  EXPECT_THROW(parse("{kind: uniform, drop: [0]}"), Error);  // belongs to stations
  EXPECT_THROW(parse("{kind: stations, stations: bad.csv}"), Error);
  EXPECT_THROW(parse("{kind: stations, stations: none.csv}"), Error);
}

TEST(Networks, ObservationsHaveTheirErrorsAndGaps) {
  Network n{{0, 1}, {0, 1}, {0.5, 2}, NetworkKind::uniform};
  Random random(7);
  const at::Tensor truth = torch::full({20000, 2}, 3.0);
  const at::Tensor y = simulate_observations(truth, n, 0.25, random);
  EXPECT_EQ(y.scalar_type(), torch::kDouble);
  EXPECT_NEAR(y.isnan().to(torch::kDouble).mean().item<double>(), 0.25, 0.01);
  for (int site = 0; site < 2; ++site) {
    const at::Tensor column = y.select(1, site);
    const at::Tensor seen = column.index({column.isfinite()});
    EXPECT_NEAR(seen.mean().item<double>(), 3, 0.05);
    EXPECT_NEAR(seen.std().item<double>(), n.error[static_cast<std::size_t>(site)],
                0.02 * n.error[static_cast<std::size_t>(site)]);
  }
  EXPECT_THROW(simulate_observations(torch::zeros({3, 3}), n, 0, random), Error);
  EXPECT_THROW(simulate_observations(torch::zeros({3, 2}), n, 2, random), Error);
}

}  // namespace
}  // namespace halcyon::training
