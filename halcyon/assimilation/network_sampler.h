// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "halcyon/sphere/region.h"
#include "halcyon/training/random.h"

namespace halcyon::assimilation {

struct Site {
  double lat, lon;
  float error_sd;
};

// An observing network of one sample and where its analysis matters most.
struct SimulatedNetwork {
  std::vector<Site> sites;
  bool stations;   // drawn from the known stations
  double missing;  // the share of reports that do not come
};

struct NetworkSamplerOptions {
  Box box;                                          // where sites may lie
  std::vector<std::pair<double, double>> stations;  // (lat, lon) of known stations, maybe none
  double station_share = 0.45;  // of networks; without known stations theirs are clusters
  double cluster_share = 0.1;   // the rest is uniform in the box
  int64_t fewest = 10, most = 200;
  double smallest_error = 0.4, largest_error = 3.0;  // K
};

// Observing networks to train on: known stations (some of them missing, some moved), sites uniform
// in the box, and clusters of sites; error levels from one for all to one for each.
SimulatedNetwork draw_network(const NetworkSamplerOptions& options, training::Random& random);

}  // namespace halcyon::assimilation
