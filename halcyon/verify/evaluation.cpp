// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/evaluation.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <chrono>
#include <limits>
#include <map>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/state/area.h"
#include "halcyon/verify/scores.h"

namespace halcyon::verify {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

// (wanted, L, N) out of (have, N): the rows at wanted[t] - lags[l], NaN where there is none.
at::Tensor lagged(const at::Tensor& values, const std::vector<int64_t>& have,
                  const std::vector<int64_t>& wanted, const std::vector<int64_t>& lags) {
  std::map<int64_t, int64_t> place;
  for (std::size_t t = 0; t < have.size(); ++t) place[have[t]] = static_cast<int64_t>(t);
  at::Tensor out = at::full(
      {static_cast<int64_t>(wanted.size()), static_cast<int64_t>(lags.size()), values.size(1)},
      kMissing, at::kDouble);
  for (std::size_t t = 0; t < wanted.size(); ++t)
    for (std::size_t l = 0; l < lags.size(); ++l)
      if (const auto found = place.find(wanted[t] - lags[l]); found != place.end())
        out[static_cast<int64_t>(t)][static_cast<int64_t>(l)].copy_(values[found->second]);
  return out;
}

at::Tensor analyse_checked(Analyser& analyser, const Network& network, const at::Tensor& values,
                           const std::vector<int64_t>& times, int64_t points, double& seconds) {
  const auto start = std::chrono::steady_clock::now();
  const at::Tensor analysis = analyser.analyse(network, values, times);
  seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  HALCYON_CHECK(analysis.dim() == 2 && analysis.size(0) == static_cast<int64_t>(times.size()) &&
                    analysis.size(1) == points,
                "evaluation", "expected {} to return ({}, {}), got {}", analyser.name(),
                times.size(), points, fmt::join(analysis.sizes(), "x"));
  // an analysis may be absent as a whole (persistence without a past), but not in part
  const at::Tensor missing = analysis.isnan();
  HALCYON_CHECK_KIND(missing.any(1).equal(missing.all(1)), numerics, "evaluation",
                     "expected whole analyses of {}, got some with NaN in part", analyser.name());
  return analysis.to(at::kDouble);
}

// What an analyser's run leaves to be scored.
struct Run {
  std::string analyser;
  at::Tensor squared;  // (T, K)
  double seconds = 0;
};

ScoreTable table_of(const std::string& protocol, const std::string& units,
                    const std::vector<Run>& runs, const std::vector<int64_t>& times,
                    int64_t stations, const BootstrapOptions& bootstrap) {
  ScoreTable table;
  for (const auto& run : runs) {
    ScoreRow row;
    row.protocol = protocol;
    row.analyser = run.analyser;
    row.units = units;
    row.score = mean_rmse(run.squared, times, bootstrap);
    if (&run != &runs.front()) {
      row.reference = runs.front().analyser;
      row.difference = mean_rmse_difference(run.squared, runs.front().squared, times, bootstrap);
    }
    row.confidence = bootstrap.confidence;
    row.times = run.squared.isnan()
                    .view({run.squared.size(0), -1})
                    .all(1)
                    .logical_not()
                    .sum()
                    .item<int64_t>();
    row.stations = stations;
    row.seconds = run.seconds;
    table.rows.push_back(std::move(row));
  }
  return table;
}

void check_truth(const state::Fields& truth, const Analysers& analysers) {
  state::check(truth, "evaluation");
  HALCYON_CHECK(truth.variables.size() == 1 && !truth.is_static(), "evaluation",
                "expected the truth of one variable at some times, got {} variables",
                truth.variables.size());
  HALCYON_CHECK(!truth.data.isnan().any().item<bool>(), "evaluation",
                "expected a truth without missing values");
  HALCYON_CHECK(!analysers.empty(), "evaluation", "expected analysers to compare, got none");
}

}  // namespace

ScoreTable evaluate_simulated(const std::string& protocol, const state::Fields& truth,
                              const Network& network, const std::optional<Box>& scored,
                              const Analysers& analysers, const EvaluationOptions& options) {
  check_truth(truth, analysers);
  HALCYON_CHECK(options.noise_sd > 0, "evaluation", "expected a noise_sd above 0, got {}",
                options.noise_sd);
  const at::Tensor fields = truth.data.select(1, 0).to(at::kDouble);
  const at::Tensor exact = observation_operator(truth.grid, network).apply(fields);
  HALCYON_CHECK(!exact.isnan().any().item<bool>(), "evaluation",
                "expected sites inside the truth's grid, got some outside");
  const at::Generator generator = at::detail::createCPUGenerator(options.seed);
  const at::Tensor observed =
      exact + options.noise_sd * at::randn(exact.sizes(), generator, exact.options());

  Network used = network;
  used.error_variance =
      at::full({network.size()}, options.noise_sd * options.noise_sd, at::kDouble);
  at::Tensor weights = state::area_weights(truth.grid);
  if (scored) weights = weights * state::inside(truth.grid, *scored);

  std::vector<Run> runs;
  for (Analyser* analyser : analysers) {
    Run run{analyser->name(), {}, 0};
    const at::Tensor values = lagged(observed, truth.times, truth.times, analyser->lags());
    const at::Tensor analysis =
        analyse_checked(*analyser, used, values, truth.times, fields.size(1), run.seconds);
    run.squared = mean_square_by_time(analysis, fields, weights);
    runs.push_back(std::move(run));
  }
  return table_of(protocol, truth.variables[0].units, runs, truth.times, network.size(),
                  options.bootstrap);
}

ScoreTable evaluate_simulated_cities(const state::Fields& truth, const StationSeries& stations,
                                     const Box& scored, const Analysers& analysers,
                                     const EvaluationOptions& options) {
  const Network network{stations.stations, stations.lon, stations.lat, {}};
  return evaluate_simulated("simulated at stations", truth, network, scored, analysers, options);
}

ScoreTable evaluate_simulated_random(const state::Fields& truth, const Box& sites,
                                     const Analysers& analysers, const EvaluationOptions& options) {
  HALCYON_CHECK(options.random_sites > 0, "evaluation", "expected random_sites above 0, got {}",
                options.random_sites);
  // another stream than the noise, which starts from the seed itself
  const at::Generator generator = at::detail::createCPUGenerator(options.seed + 0x9e3779b9);
  auto uniform = [&](double low, double high) {
    return low + (high - low) * at::rand({options.random_sites}, generator,
                                         at::TensorOptions().dtype(at::kDouble));
  };
  const double width =
      sites.east >= sites.west ? sites.east - sites.west : sites.east - sites.west + 360;
  Network network;
  network.lat = uniform(sites.south, sites.north);
  network.lon = uniform(sites.west, sites.west + width);
  for (int64_t n = 0; n < options.random_sites; ++n)
    network.stations.push_back(fmt::format("site {}", n + 1));
  return evaluate_simulated("simulated at random sites", truth, network, std::nullopt, analysers,
                            options);
}

RealObservations::RealObservations(const state::Fields& truth, const StationSeries& series,
                                   const state::Interval& period)
    : network_{series.stations, series.lon, series.lat, {}} {
  for (const int64_t time : truth.times)
    if (period.start <= time && time < period.end) all_.push_back(time);
  HALCYON_CHECK(!all_.empty(), "RealObservations", "expected fields from {} until {}, got none",
                format_time(period.start), format_time(period.end));
  const state::Fields used = state::select_times(truth, all_);
  const at::Tensor reports = lagged(series.values, series.times, all_, {0}).select(1, 0);
  const at::Tensor departures =
      reports -
      observation_operator(truth.grid, network_).apply(used.data.select(1, 0).to(at::kDouble));

  // group of the bias: month and hour of the day
  std::map<std::pair<int, int64_t>, std::pair<std::vector<int64_t>, std::vector<int64_t>>> groups;
  std::vector<int64_t> even, odd;
  for (std::size_t t = 0; t < all_.size(); ++t) {
    const auto index = static_cast<int64_t>(t);
    const int64_t day = static_cast<int64_t>(day_of_year(all_[t])) + 1;
    const auto second = static_cast<int64_t>(second_of_day(all_[t]));
    auto& [members, of_even] = groups[{civil_from_days((all_[t] - second) / 86400).month, second}];
    members.push_back(index);
    (day % 2 == 0 ? even : odd).push_back(index);
    if (day % 2 == 0) of_even.push_back(index);
  }
  at::Tensor bias = at::full_like(departures, kMissing);
  for (const auto& [key, group] : groups) {
    if (group.second.empty()) continue;
    const at::Tensor mean =
        departures.index_select(0, at::tensor(group.second, at::kLong)).nanmean(0);
    bias.index_copy_(0, at::tensor(group.first, at::kLong),
                     mean.expand({static_cast<int64_t>(group.first.size()), -1}).contiguous());
  }
  const at::Tensor residual = departures - bias;
  const at::Tensor of_even = residual.index_select(0, at::tensor(even, at::kLong));
  const at::Tensor of_odd = residual.index_select(0, at::tensor(odd, at::kLong));
  network_.error_variance = (of_even - of_even.nanmean(0)).square().nanmean(0);
  const at::Tensor station_rmse = of_odd.square().nanmean(0).sqrt();
  const at::Tensor usable = network_.error_variance.gt(0).logical_and(station_rmse.isfinite());
  for (int64_t n = 0; n < network_.size(); ++n)
    HALCYON_CHECK(usable[n].item<bool>(), "RealObservations",
                  "expected reports of {} on even and on odd days",
                  network_.stations[static_cast<std::size_t>(n)]);
  truth_rmse_ = station_rmse.mean().item<double>();
  corrected_ = reports - bias;
  for (const int64_t t : odd) odd_.push_back(all_[static_cast<std::size_t>(t)]);
}

at::Tensor RealObservations::values(const std::vector<int64_t>& lags) const {
  return lagged(corrected_, all_, odd_, lags);
}

ScoreTable evaluate_real_leave_one_out(const RealObservations& observations, const Grid& grid,
                                       const std::string& units, const Analysers& analysers,
                                       const EvaluationOptions& options) {
  HALCYON_CHECK(!analysers.empty(), "evaluation", "expected analysers to compare, got none");
  const Network& network = observations.network();
  const SparseMatrix h = observation_operator(grid, network);
  const at::Tensor reports = observations.values({0}).select(1, 0);  // (T, N)
  std::vector<Run> runs;
  for (Analyser* analyser : analysers) {
    Run run{analyser->name(), at::empty_like(reports), 0};
    const at::Tensor values = observations.values(analyser->lags());
    for (int64_t n = 0; n < network.size(); ++n) {
      const at::Tensor number = at::arange(network.size());
      const at::Tensor others = values.index_select(2, number.masked_select(number != n));
      const at::Tensor analysis = analyse_checked(*analyser, network.without(n), others,
                                                  observations.times(), size_of(grid), run.seconds);
      const at::Tensor predicted = h.apply(analysis).select(1, n);
      run.squared.select(1, n).copy_((predicted - reports.select(1, n)).square());
    }
    runs.push_back(std::move(run));
  }
  return table_of("real, leave one station out", units, runs, observations.times(), network.size(),
                  options.bootstrap);
}

}  // namespace halcyon::verify
