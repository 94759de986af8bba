// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/evaluation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/state/area.h"
#include "halcyon/state/read_fields.h"
#include "halcyon/verify/scores.h"
#include "tests/support/paths.h"

namespace halcyon::verify {
namespace {

using state::Fields;
using state::Purpose;

// The split of shared/baselines/real_data_baselines.py: fit on 2013, test on 2014.
struct NorthAmerica {
  Fields all, training, test;
  std::shared_ptr<const state::Climatology> climatology;
  StationSeries cities;

  static const NorthAmerica& get() {
    static const NorthAmerica data = [] {
      const auto folder = test::shared_dir() / "data";
      const state::DataSplit split({{parse_time("2013-01-01"), parse_time("2014-01-01")}}, {},
                                   {{parse_time("2014-01-01"), parse_time("2015-01-01")}});
      Fields fields =
          state::read_fields(folder / "ncep_air_namerica_6h_2013_2014/air_temperature.nc");
      Fields training = split.select(fields, Purpose::training);
      Fields evaluated = split.select(fields, Purpose::evaluation);
      auto climatology = std::make_shared<const state::Climatology>(
          state::Climatology::fit(training, training.times));
      return NorthAmerica{
          std::move(fields), std::move(training), std::move(evaluated), std::move(climatology),
          read_station_series(folder / "owm_us_cities_hourly/us26_stations.csv",
                              folder / "owm_us_cities_hourly/us26_temperature_6h_2013_2014.csv")};
    }();
    return data;
  }
};

constexpr Box kUnitedStates = {235, 292.5, 27.5, 47.5};
constexpr Box kRandomSites = {202, 328, 17, 73};

// The numbers of the Python script, which draws other noise and other sites: 0.02 K covers that.
TEST(Baselines, SimulatedStations) {
  HALCYON_NEEDS_SHARED();
  const auto& data = NorthAmerica::get();
  ClimatologyAnalyser climatology(data.climatology);
  OptimalInterpolationAnalyser single(data.climatology, data.training);
  OptimalInterpolationAnalyser lagged(data.climatology, data.training, {0, 21600, 43200, 64800});
  const ScoreTable table = evaluate_simulated_cities(data.test, data.cities, kUnitedStates,
                                                     {&climatology, &single, &lagged});
  std::cout << table.text();
  EXPECT_NEAR(table.rows[0].score.value, 4.6321, 0.0005);  // no draws in this one
  EXPECT_NEAR(table.rows[1].score.value, 2.28, 0.02);
  EXPECT_NEAR(table.rows[2].score.value, 2.20, 0.02);
  EXPECT_EQ(table.rows[1].times, 1460);
  EXPECT_EQ(table.rows[1].stations, 26);
  EXPECT_LT(table.rows[1].difference->high, -2);
  EXPECT_LT(table.rows[1].score.low, table.rows[1].score.value);
}

TEST(Baselines, SimulatedRandomSites) {
  HALCYON_NEEDS_SHARED();
  const auto& data = NorthAmerica::get();
  ClimatologyAnalyser climatology(data.climatology);
  OptimalInterpolationAnalyser single(data.climatology, data.training);
  PersistenceAnalyser six_hours(data.climatology, data.test, 6 * 3600),
      one_day(data.climatology, data.test, 24 * 3600);
  OptimalInterpolationAnalyser lagged(data.climatology, data.training, {0, 21600});
  const ScoreTable table = evaluate_simulated_random(
      data.test, kRandomSites, {&climatology, &single, &six_hours, &one_day, &lagged});
  std::cout << table.text();
  EXPECT_NEAR(table.rows[0].score.value, 3.6861, 0.0005);
  EXPECT_NEAR(table.rows[1].score.value, 1.67, 0.04);  // depends on where the 150 sites fall
  EXPECT_NEAR(table.rows[2].score.value, 1.494119, 1e-4);
  EXPECT_NEAR(table.rows[3].score.value, 3.00, 0.005);
  EXPECT_EQ(table.rows[3].times, 1456);
  EXPECT_EQ(table.rows[2].analyser, "persistence PT6H");
  EXPECT_NEAR(table.rows[4].score.value, 1.63, 0.04);
}

TEST(Baselines, RealObservationsLeaveOneOut) {
  HALCYON_NEEDS_SHARED();
  const auto& data = NorthAmerica::get();
  const RealObservations real(data.all, data.cities,
                              {parse_time("2014-04-01"), parse_time("2015-01-01")});
  EXPECT_EQ(real.times().size(), 552u);
  // nothing is drawn: these are the script's own digits
  EXPECT_NEAR(real.network().error_variance[0].item<double>(), 3.49141722, 1e-4);
  EXPECT_NEAR(real.network().error_variance.mean().item<double>(), 3.5447880693, 1e-4);
  EXPECT_NEAR(real.truth_rmse(), 1.9156618478630618, 1e-4);
  ClimatologyAnalyser climatology(data.climatology);
  OptimalInterpolationAnalyser single(data.climatology, data.training);
  OptimalInterpolationAnalyser lagged(data.climatology, data.training, {0, 21600, 43200, 64800});
  const ScoreTable table =
      evaluate_real_leave_one_out(real, data.all.grid, "K", {&climatology, &single, &lagged});
  std::cout << table.text();
  EXPECT_NEAR(table.rows[0].score.value, 4.049141919225874, 1e-4);
  EXPECT_NEAR(table.rows[1].score.value, 2.124591123483033, 1e-4);
  EXPECT_NEAR(table.rows[2].score.value, 2.10, 0.01);

  // the analysis from all cities against the grid, over the United States
  const Fields truth = state::select_times(data.all, real.times());
  const at::Tensor analysis = single.analyse(real.network(), real.values({0}), real.times());
  const at::Tensor weights =
      state::area_weights(truth.grid) * state::inside(truth.grid, kUnitedStates);
  EXPECT_NEAR(score(analysis, truth.data.select(1, 0), weights).rmse, 2.46428757792167, 1e-4);
}

// A small world where the truth is known: one wave moving over a 6 x 8 grid.
Fields small_world(int64_t times) {
  Fields fields{{{"t", "", "", "K"}},
                LatLonGrid({10, 20, 30, 40, 50, 60}, {0, 10, 20, 30, 40, 50, 60, 70}),
                {},
                at::empty({times, 1, 48}, at::kFloat)};
  for (int64_t t = 0; t < times; ++t) {
    fields.times.push_back(t * 21600);
    for (int64_t x = 0; x < 48; ++x)
      fields.data[t][0][x] =
          280 + 5 * std::sin(0.3 * static_cast<double>(t) + 0.8 * static_cast<double>(x % 8));
  }
  return fields;
}

class Recording : public Analyser {
 public:
  explicit Recording(at::Tensor answer) : answer_(std::move(answer)) {}
  std::string name() const override { return "recording"; }
  std::vector<int64_t> lags() const override { return {0, 43200}; }
  at::Tensor analyse(const Network& network, const at::Tensor& values,
                     const std::vector<int64_t>&) override {
    networks.push_back(network);
    seen.push_back(values);
    return answer_;
  }
  std::vector<Network> networks;
  std::vector<at::Tensor> seen;

 private:
  at::Tensor answer_;
};

TEST(Evaluation, AnalysersSeeLaggedObservationsOfTheTruth) {
  const Fields truth = small_world(40);
  Recording recording(truth.data.select(1, 0).to(at::kDouble) + 2);
  StationSeries sites{{"a", "b"},
                      at::tensor({20.0, 35.0}, at::kDouble),
                      at::tensor({30.0, 15.0}, at::kDouble),
                      {},
                      {}};
  const ScoreTable table =
      evaluate_simulated_cities(truth, sites, {0, 30, 10, 30}, {&recording}, {.noise_sd = 1e-6});
  EXPECT_NEAR(table.rows[0].score.value, 2, 1e-6);
  const at::Tensor values = recording.seen.at(0);
  ASSERT_EQ(values.sizes(), (std::vector<int64_t>{40, 2, 2}));
  EXPECT_NEAR(values[5][0][0].item<double>(), truth.data[5][0][2 * 8 + 2].item<double>(), 1e-4);
  EXPECT_NEAR(values[5][1][0].item<double>(), truth.data[3][0][2 * 8 + 2].item<double>(), 1e-4);
  EXPECT_TRUE(std::isnan(values[1][1][1].item<double>()));
  EXPECT_NEAR(recording.networks[0].error_variance[1].item<double>(), 1e-12, 1e-18);
}

TEST(Evaluation, SameNoiseForAllAndForTheSameSeed) {
  const Fields truth = small_world(30);
  const at::Tensor answer = truth.data.select(1, 0).to(at::kDouble);
  Recording a(answer), b(answer), c(answer);
  evaluate_simulated_random(truth, {5, 65, 12, 58}, {&a, &b}, {.seed = 4, .random_sites = 9});
  EXPECT_TRUE(a.seen[0].equal(b.seen[0]) || a.seen[0].nan_to_num().equal(b.seen[0].nan_to_num()));
  EXPECT_GT(a.networks[0].lat.min().item<double>(), 12);
  EXPECT_LT(a.networks[0].lon.max().item<double>(), 65);
  evaluate_simulated_random(truth, {5, 65, 12, 58}, {&c}, {.seed = 5, .random_sites = 9});
  EXPECT_FALSE(a.seen[0].nan_to_num().equal(c.seen[0].nan_to_num()));
}

TEST(Evaluation, WithheldStationsAreNotShown) {
  const Fields truth = small_world(4 * 60);
  StationSeries sites{{"a", "b", "c"},
                      at::tensor({20.0, 30.0, 40.0}, at::kDouble),
                      at::tensor({30.0, 30.0, 30.0}, at::kDouble),
                      truth.times,
                      {}};
  at::manual_seed(0);
  const at::Tensor exact =
      truth.data.select(1, 0).to(at::kDouble).index_select(1, at::tensor({18, 19, 20}, at::kLong));
  const at::Tensor noise = 0.1 * at::randn(exact.sizes(), exact.options());
  sites.values = exact + at::tensor({5.0, -3.0, 0.0}, at::kDouble) + noise;  // stations' biases
  const RealObservations real(truth, sites, {0, 60 * 86400});
  EXPECT_NEAR(real.network().error_variance.max().item<double>(), 0.01, 0.004);
  Recording recording(state::select_times(truth, real.times()).data.select(1, 0).to(at::kDouble));
  const ScoreTable table = evaluate_real_leave_one_out(real, truth.grid, "K", {&recording});
  ASSERT_EQ(recording.networks.size(), 3u);
  EXPECT_EQ(recording.networks[1].stations, (std::vector<std::string>{"a", "c"}));
  EXPECT_TRUE(recording.seen[1].nan_to_num().equal(
      real.values({0, 43200}).index_select(2, at::tensor({0, 2}, at::kLong)).nan_to_num()));
  // biases gone, the noise and the sampling error of the bias remain
  EXPECT_NEAR(table.rows[0].score.value, real.truth_rmse(), 1e-4);
  EXPECT_NEAR(table.rows[0].score.value, 0.1, 0.02);
}

TEST(Evaluation, ErrorsNameTheCause) {
  const Fields truth = small_world(10);
  const StationSeries sites{
      {"a"}, at::tensor({20.0}, at::kDouble), at::tensor({30.0}, at::kDouble), {}, {}};
  Recording wrong(at::zeros({3, 48}, at::kDouble));
  EXPECT_THROW(evaluate_simulated_cities(truth, sites, {0, 30, 10, 30}, {&wrong}), Error);
  at::Tensor holes = truth.data.select(1, 0).to(at::kDouble).clone();
  holes[2][5] = std::nan("");
  Recording partial(holes);
  try {
    evaluate_simulated_cities(truth, sites, {0, 30, 10, 30}, {&partial});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::numerics);
  }
  StationSeries outside = sites;
  outside.lat = at::tensor({-60.0}, at::kDouble);
  EXPECT_THROW(evaluate_simulated_cities(truth, outside, {0, 30, 10, 30}, {&partial}), Error);
  EXPECT_THROW(evaluate_simulated_cities(truth, sites, {0, 30, 10, 30}, {}), Error);
}

}  // namespace
}  // namespace halcyon::verify
