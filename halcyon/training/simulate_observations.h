// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "halcyon/base/config.h"
#include "halcyon/training/random.h"

// Observing systems that never were, on true fields: what a network trains on.
namespace halcyon::training {

struct Interval {
  double low = 0, high = 0;
};

enum class NetworkKind { stations, uniform, clustered };

// One way to draw a network. Positions in degrees; errors in the units of the observations.
struct NetworkOptions {
  NetworkKind kind = NetworkKind::uniform;
  double weight = 1;  // against the other ways
  // uniform in longitude and in latitude, and the limits for every site
  Interval lon{-180, 180}, lat{-90, 90};
  Interval count{100, 200};               // uniform, clustered: sites
  Interval clusters{2, 9};                // clustered: centres
  double spread_lat = 6, spread_lon = 9;  // clustered: standard deviations about a centre
  std::vector<double> station_lon, station_lat;
  std::vector<double> drop{0};    // stations: one of these is the share of stations left out
  double jitter = 0;              // stations: standard deviation of a displacement, degrees,
  double jitter_probability = 0;  //         of a whole network
  double error = 1;               // the standard error of every site,
  double varied_probability = 0;  // unless, with this probability, each has its own from
  Interval varied{0.4, 3};        // here
};

struct Network {
  std::vector<double> lon, lat, error;
  NetworkKind kind;
  std::size_t size() const { return lon.size(); }
};

// Draws one of the ways by its weight, then a network: at least one site, all within the limits.
Network draw_network(const std::vector<NetworkOptions>& ways, Random& random);

// The section's kind, weight, lon, lat, count, clusters, spread, stations (a CSV file with columns
// lat and lon), drop, jitter, jitter_probability, error, varied_probability and varied_errors.
NetworkOptions network_options(const config::Node& node);

// Observations of truth (T, N) at a network's N sites in T frames: truth + error x normal, NaN
// where one is missing, which each is with the probability `missing`. float64 (T, N).
at::Tensor simulate_observations(const at::Tensor& truth, const Network& network, double missing,
                                 Random& random);

}  // namespace halcyon::training
