// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/network_sampler.h"

#include <algorithm>

namespace halcyon::assimilation {

namespace {

Site clamped(const Box& box, double lat, double lon) {
  constexpr double kMargin = 0.1;  // degrees
  return {std::clamp(lat, box.south + kMargin, box.north - kMargin),
          std::clamp(lon, box.west + kMargin, box.east - kMargin), 1.0f};
}

std::vector<Site> known_stations(const NetworkSamplerOptions& options, training::Random& random) {
  constexpr double kAbsent[] = {0, 0.04, 0.15, 0.4};
  const double absent = kAbsent[random.below(4)];
  const bool moved = random.chance(0.3);
  const int64_t always = random.below(static_cast<int64_t>(options.stations.size()));
  std::vector<Site> sites;
  for (int64_t i = 0; i < static_cast<int64_t>(options.stations.size()); ++i) {
    if (i != always && random.chance(absent)) continue;
    const auto [lat, lon] = options.stations[i];
    const double shift_lat = moved ? 1.5 * random.normal() : 0,
                 shift_lon = moved ? 1.5 * random.normal() : 0;
    sites.push_back(clamped(options.box, lat + shift_lat, lon + shift_lon));
  }
  return sites;
}

std::vector<Site> uniform_sites(const NetworkSamplerOptions& options, training::Random& random) {
  // dense networks more often than few sites
  const int64_t fewest = random.chance(0.6) ? (options.fewest + options.most) / 2 : options.fewest;
  const int64_t count = fewest + random.below(options.most - fewest + 1);
  std::vector<Site> sites;
  sites.reserve(static_cast<std::size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    sites.push_back(clamped(options.box, random.uniform(options.box.south, options.box.north),
                            random.uniform(options.box.west, options.box.east)));
  }
  return sites;
}

std::vector<Site> clustered_sites(const NetworkSamplerOptions& options, training::Random& random) {
  const int64_t clusters = 2 + random.below(8);
  std::vector<Site> centres;
  centres.reserve(static_cast<std::size_t>(clusters));
  for (int64_t i = 0; i < clusters; ++i) {
    centres.push_back(clamped(options.box, random.uniform(options.box.south, options.box.north),
                              random.uniform(options.box.west, options.box.east)));
  }
  const int64_t count = options.fewest + random.below(std::max<int64_t>(1, options.most * 3 / 4));
  std::vector<Site> sites;
  for (int64_t i = 0; i < count; ++i) {
    const auto& centre = centres[random.below(clusters)];
    const double lat = centre.lat + 6 * random.normal(), lon = centre.lon + 9 * random.normal();
    sites.push_back(clamped(options.box, lat, lon));
  }
  return sites;
}

}  // namespace

SimulatedNetwork draw_network(const NetworkSamplerOptions& options, training::Random& random) {
  constexpr double kMissing[] = {0, 0.05, 0.2};
  const double kind = random.uniform();
  SimulatedNetwork network;
  network.stations = !options.stations.empty() && kind < options.station_share;
  if (network.stations) {
    network.sites = known_stations(options, random);
  } else if (kind < options.station_share + options.cluster_share) {
    network.sites = clustered_sites(options, random);
  } else {
    network.sites = uniform_sites(options, random);
  }
  // an error of one unit for all, of representative stations, or of each its own
  const bool own = random.chance(0.5);
  const bool representative = network.stations && random.chance(0.5);
  for (auto& site : network.sites) {
    if (representative) {
      site.error_sd = static_cast<float>(std::clamp(1.8 + 0.4 * random.normal(), 0.8, 3.2));
    } else if (own) {
      site.error_sd =
          static_cast<float>(random.uniform(options.smallest_error, options.largest_error));
    }
  }
  network.missing = kMissing[random.below(3)];
  return network;
}

}  // namespace halcyon::assimilation
