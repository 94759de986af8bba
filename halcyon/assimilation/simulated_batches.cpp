// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/simulated_batches.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <numbers>

#include "halcyon/assimilation/posterior_mean.h"

namespace halcyon::assimilation {

namespace {

// The share of the loss that an analysis of stations gives to where the stations are.
constexpr double kFocusShare = 0.7;

at::Tensor inside(const LatLonGrid& grid, const Box& box) {
  const auto [lon, lat] = grid.points();
  const auto east = (lon - box.west).remainder(360.0) <= box.east - box.west;
  return east.logical_and(lat >= box.south).logical_and(lat <= box.north).to(at::kDouble);
}

}  // namespace

// The reports of a network that came, and how fields look at its sites.
struct SimulatedBatches::Reports {
  const SimulatedNetwork& network;
  SparseMatrix to_sites;
  at::Tensor spread;  // (sites,) float32
  std::vector<Report> list;
};

SimulatedBatches::SimulatedBatches(const RegionalSystem& system, SeasonalEnsemble ensemble,
                                   NetworkSamplerOptions networks, const Box& focus)
    : system_(system), ensemble_(std::move(ensemble)), networks_(std::move(networks)) {
  const auto [lon, lat] = system.grid.points();
  const auto cosine = (lat * (std::numbers::pi / 180)).cos();
  const auto box = cosine * inside(system.grid, focus);
  const auto area = cosine / cosine.sum();
  const auto in_variances = [&](const at::Tensor& w) {
    return (w / (w * system.spread.square()).sum()).to(at::kFloat);
  };
  area_weights_ = in_variances(area);
  station_weights_ = in_variances(area * (1 - kFocusShare) + box / box.sum() * kFocusShare);
}

SimulatedBatches::Reports SimulatedBatches::reports_of(const SimulatedNetwork& network,
                                                       training::Random& random) const {
  const auto count = static_cast<int64_t>(network.sites.size());
  auto lat = at::empty({count}, at::kDouble), lon = at::empty({count}, at::kDouble);
  for (int64_t i = 0; i < count; ++i) {
    lat.mutable_data_ptr<double>()[i] = network.sites[i].lat;
    lon.mutable_data_ptr<double>()[i] = network.sites[i].lon;
  }
  auto to_sites = bilinear_to_points(system_.grid, lon, lat);
  const auto spread = to_sites.apply(system_.spread);
  std::vector<Report> list;
  for (std::size_t age = 0; age < system_.ages.size(); ++age) {
    for (int64_t i = 0; i < count; ++i) {
      const auto error = network.sites[i].error_sd;
      if (!random.chance(network.missing))
        list.push_back({i, static_cast<int64_t>(age), error * error});
    }
  }
  return {network, std::move(to_sites), spread, std::move(list)};
}

void SimulatedBatches::add(const Reports& reports, const at::Tensor& departures, int64_t time,
                           DepartureSet& set) const {
  set.time = time;
  const auto* values = departures.const_data_ptr<float>();
  const auto* spread = reports.spread.const_data_ptr<float>();
  for (std::size_t i = 0; i < reports.list.size(); ++i) {
    const auto& report = reports.list[i];
    const auto& site = reports.network.sites[report.site];
    set.observations.push_back({site.lat, site.lon, values[i], site.error_sd, spread[report.site],
                                static_cast<float>(system_.ages[report.age]) / 3600});
  }
}

SimulatedBatch SimulatedBatches::empty(int64_t size) const {
  SimulatedBatch batch;
  batch.observations.resize(size);
  batch.target = at::empty({size, system_.grid.size()});
  batch.weights = at::empty({size, system_.grid.size()});
  return batch;
}

// Departures (N, reports) of fields (N, ages * X) with errors.
static at::Tensor observe(const at::Tensor& fields, int64_t points, const SparseMatrix& to_sites,
                          const std::vector<Report>& reports, training::Random& random) {
  const int64_t count = fields.size(0);
  const auto at_sites = to_sites.apply(fields.view({count, -1, points}));  // (N, ages, sites)
  const int64_t ages = at_sites.size(1), sites = at_sites.size(2);
  auto departures = at::empty({count, static_cast<int64_t>(reports.size())});
  auto* out = departures.mutable_data_ptr<float>();
  const auto* values = at_sites.const_data_ptr<float>();
  for (int64_t n = 0; n < count; ++n) {
    for (const auto& report : reports) {
      *out++ = values[(n * ages + report.age) * sites + report.site] +
               static_cast<float>(random.normal()) * std::sqrt(report.error_variance);
    }
  }
  return departures;
}

SimulatedBatch SimulatedBatches::draw(const training::Draw& draw,
                                      const SimulatedBatchOptions& options) const {
  const int64_t points = ensemble_.points();
  auto batch = empty(options.networks * options.fields);
  std::vector<char> stations(options.networks);  // not of bool: threads write side by side
  at::parallel_for(0, options.networks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      auto random = draw.random(static_cast<uint64_t>(g));
      const int64_t season = random.below(ensemble_.seasons());
      const auto network = draw_network(networks_, random);
      const auto reports = reports_of(network, random);
      const auto fields = ensemble_.draw(random, season, options.fields);
      const auto departures = observe(fields, points, reports.to_sites, reports.list, random);
      const auto target = random.chance(options.truth_share)
                              ? fields.slice(1, 0, points)
                              : posterior_mean(ensemble_.covariance(season), reports.to_sites,
                                               reports.list, departures);
      const int64_t first = g * options.fields;
      batch.target.slice(0, first, first + options.fields).copy_(target);
      batch.weights.slice(0, first, first + options.fields)
          .copy_(
              (network.stations ? station_weights_ : area_weights_).expand({options.fields, -1}));
      for (int64_t i = 0; i < options.fields; ++i) {
        add(reports, departures[i], ensemble_.draw_time(random, season),
            batch.observations[first + i]);
      }
      stations[g] = network.stations;
    }
  });
  for (const char known : stations) {
    batch.stations.insert(batch.stations.end(), options.fields, known != 0);
  }
  return batch;
}

SimulatedBatch SimulatedBatches::true_fields(uint64_t seed, int64_t count) const {
  auto batch = empty(count);
  for (int64_t i = 0; i < count; ++i) {
    training::Random random(seed, {static_cast<uint64_t>(i)});
    const auto [time, window] = ensemble_.window(i * ensemble_.windows() / count);
    const auto network = draw_network(networks_, random);
    const auto reports = reports_of(network, random);
    const auto departures =
        observe(window.unsqueeze(0), ensemble_.points(), reports.to_sites, reports.list, random);
    batch.target[i].copy_(window.slice(0, 0, ensemble_.points()));
    batch.weights[i].copy_(network.stations ? station_weights_ : area_weights_);
    add(reports, departures[0], time, batch.observations[i]);
    batch.stations.push_back(network.stations);
  }
  return batch;
}

}  // namespace halcyon::assimilation
