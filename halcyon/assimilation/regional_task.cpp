// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/regional_task.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "halcyon/base/csv.h"
#include "halcyon/base/error.h"

namespace halcyon::assimilation {

namespace {

constexpr uint64_t kValidationSeed = 20130101;  // the same networks and errors at every validation

// Simulated sites are drawn between the borders as numbers: no box crosses longitude 0.
Box box_of(const config::Node& section) {
  const Box box = {section.required<double>("west"), section.required<double>("east"),
                   section.required<double>("south", config::between(-90, 90)),
                   section.required<double>("north", config::between(-90, 90))};
  section.check(box.west < box.east, "west", "expected west below east, got {} and {}", box.west,
                box.east);
  section.check(box.south < box.north, "south", "expected south below north, got {} and {}",
                box.south, box.north);
  return box;
}

// The places of stations, from a CSV file with the columns lat and lon.
std::vector<std::pair<double, double>> places(const std::filesystem::path& file) {
  const auto table = read_csv(file);
  const auto lat = table.column("lat"), lon = table.column("lon");
  std::vector<std::pair<double, double>> sites;
  for (std::size_t row = 0; row < table.rows.size(); ++row) {
    const double north = table.number(row, lat), east = table.number(row, lon);
    HALCYON_CHECK_KIND(std::abs(north) <= 90 && east >= -180 && east <= 360, input, "train",
                       "{}: expected a position in degrees, got {}, {}", table.where(row), north,
                       east);
    sites.emplace_back(north, east < 0 ? east + 360 : east);
  }
  return sites;
}

SeasonalEnsembleOptions ensemble_options(const RegionalSystem& system, const config::Node& fields) {
  SeasonalEnsembleOptions options;
  options.ages = system.ages;
  options.localisation_km = fields.optional<double>("localisation_km", 1500, config::positive());
  options.season_days = fields.optional<double>("season_days", 40, config::positive());
  options.seasons = fields.optional<int64_t>("seasons", 4, config::between(1, 12));
  options.mixture = fields.optional<int64_t>("mixture", 8, config::between(1, 64));
  options.amplitude = fields.optional<double>("amplitude", 0.15, config::between(0, 2));
  return options;
}

NetworkSamplerOptions network_options(const config::Node& networks) {
  NetworkSamplerOptions options;
  options.box = box_of(networks.section("box"));
  if (networks.has("stations")) options.stations = places(networks.input_file("stations"));
  options.station_share = networks.optional<double>("station_share", 0.45, config::between(0, 1));
  options.cluster_share = networks.optional<double>("cluster_share", 0.1, config::between(0, 1));
  options.fewest = networks.optional<int64_t>("fewest", 10, config::at_least(1));
  options.most = networks.optional<int64_t>("most", 200,
                                            config::at_least(static_cast<double>(options.fewest)));
  options.smallest_error = networks.optional<double>("smallest_error", 0.4, config::positive());
  options.largest_error =
      networks.optional<double>("largest_error", 3.0, config::at_least(options.smallest_error));
  return options;
}

SimulatedBatches batches_of(const RegionalSystem& system, state::Purpose purpose,
                            const SeasonalEnsembleOptions& fields,
                            const NetworkSamplerOptions& networks, const Box& focus) {
  std::vector<int64_t> times;
  const auto anomalies = system.anomalies(purpose, times);
  return {system, SeasonalEnsemble(system.grid, times, anomalies, fields), networks, focus};
}

}  // namespace

RegionalTask::RegionalTask(const RegionalSystem& system, HealDA model, const config::Node& run,
                           training::LossOptions loss)
    : model_(system, std::move(model)),
      loss_(std::move(loss)),
      unit_(system.spread.square().mean().sqrt().item<double>()) {
  const auto simulation = run.section("simulation");
  auto fields = ensemble_options(system, simulation.section_or_defaults("fields"));
  const auto networks = network_options(simulation.section("networks"));
  const auto focus = box_of(simulation.section("focus"));
  const auto batch = run.section("batch");
  batch_.networks = batch.required<int64_t>("networks", config::at_least(1));
  batch_.fields = batch.required<int64_t>("fields", config::at_least(1));
  batch_.truth_share = batch.optional<double>("truth_share", 0, config::between(0, 1));
  const auto validation = run.optional<int64_t>("validation_samples", 512, config::at_least(1));
  batches_ = std::make_unique<SimulatedBatches>(
      batches_of(system, state::Purpose::training, fields, networks, focus));
  if (!system.split.intervals(state::Purpose::validation).empty()) {
    fields.seasons = 1;  // no covariance is asked of the fields held out
    validation_ = batches_of(system, state::Purpose::validation, fields, networks, focus)
                      .true_fields(kValidationSeed, validation);
  }
}

training::Loss RegionalTask::loss(const training::Draw& draw) {
  const auto batch = batches_->draw(draw, batch_);
  const auto prediction = model_.forward(batch.observations);
  // in units of the climatological spread
  const auto error = training::weighted_loss((prediction / unit_).unsqueeze(1),
                                             (batch.target / unit_).unsqueeze(1), loss_, {},
                                             batch.weights.unsqueeze(1));
  return {error, batch.target.size(0), {{"target", batch.target}, {"prediction", prediction}}};
}

training::Scores RegionalTask::validate() {
  training::Scores scores;
  if (validation_.observations.empty()) return scores;
  const auto error = (model_.analyse(validation_.observations) - validation_.target).square();
  const auto mean = (error * validation_.weights).sum(1) / validation_.weights.sum(1);
  double squares[2] = {0, 0}, counts[2] = {0, 0};
  for (std::size_t b = 0; b < validation_.stations.size(); ++b) {
    const int kind = validation_.stations[b] ? 0 : 1;
    squares[kind] += mean[static_cast<int64_t>(b)].item<double>();
    counts[kind] += 1;
  }
  scores["rmse_stations"] = std::sqrt(squares[0] / std::max(1.0, counts[0]));
  scores["rmse_other"] = std::sqrt(squares[1] / std::max(1.0, counts[1]));
  scores["rmse"] = (scores["rmse_stations"] + scores["rmse_other"]) / 2;
  return scores;
}

}  // namespace halcyon::assimilation
