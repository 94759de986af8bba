// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/simulate_observations.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <sstream>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"

namespace halcyon::training {
namespace {

const config::Names<NetworkKind> kKinds{{"stations", NetworkKind::stations},
                                        {"uniform", NetworkKind::uniform},
                                        {"clustered", NetworkKind::clustered}};

int64_t whole(const Interval& range, Random& random) {
  const auto low = static_cast<int64_t>(range.low), high = static_cast<int64_t>(range.high);
  return low + random.below(high - low + 1);
}

void add_site(Network& network, const NetworkOptions& way, double lon, double lat) {
  network.lon.push_back(std::clamp(lon, way.lon.low, way.lon.high));
  network.lat.push_back(std::clamp(lat, way.lat.low, way.lat.high));
}

void add_stations(Network& network, const NetworkOptions& way, Random& random) {
  const std::size_t n = way.station_lon.size();
  const double drop =
      way.drop[static_cast<std::size_t>(random.below(static_cast<int64_t>(way.drop.size())))];
  const auto always = static_cast<std::size_t>(random.below(static_cast<int64_t>(n)));
  const double jitter = random.chance(way.jitter_probability) ? way.jitter : 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (random.chance(drop) && i != always) continue;
    const double east = jitter * random.normal(), north = jitter * random.normal();
    add_site(network, way, way.station_lon[i] + east, way.station_lat[i] + north);
  }
}

void add_clusters(Network& network, const NetworkOptions& way, Random& random) {
  std::vector<std::pair<double, double>> centres;
  for (int64_t i = whole(way.clusters, random); i > 0; --i) {
    const double lon = random.uniform(way.lon.low, way.lon.high);
    centres.emplace_back(lon, random.uniform(way.lat.low, way.lat.high));
  }
  for (int64_t i = whole(way.count, random); i > 0; --i) {
    const auto& [lon, lat] =
        centres[static_cast<std::size_t>(random.below(static_cast<int64_t>(centres.size())))];
    const double east = way.spread_lon * random.normal(), north = way.spread_lat * random.normal();
    add_site(network, way, lon + east, lat + north);
  }
}

Interval interval(const config::Node& node, const char* key, Interval fallback,
                  config::Limits limits) {
  const auto ends = node.optional<std::vector<double>>(key, {fallback.low, fallback.high}, limits);
  node.check(ends.size() == 2 && ends[0] <= ends[1], key, "expected [low, high]");
  return {ends[0], ends[1]};
}

// The columns lat and lon of a CSV file, without quotes around numbers.
void read_stations(const config::Node& node, NetworkOptions& way) {
  const auto path = node.input_file("stations");
  std::istringstream text(read_text(path, std::size_t{1} << 26));
  const auto split = [](const std::string& line) {
    std::vector<std::string> cells;
    std::istringstream cells_of(line);
    for (std::string cell; std::getline(cells_of, cell, ',');) {
      while (!cell.empty() && (cell.back() == '\r' || cell.back() == ' ')) cell.pop_back();
      cell.erase(0, cell.find_first_not_of(' '));
      cells.push_back(cell);
    }
    return cells;
  };
  std::string line;
  std::getline(text, line);
  const auto names = split(line);
  const auto column = [&](const char* name) {
    const auto found = std::find(names.begin(), names.end(), name);
    node.check(found != names.end(), "stations", "{} has no column '{}'", path.string(), name);
    return static_cast<std::size_t>(found - names.begin());
  };
  const std::size_t lat = column("lat"), lon = column("lon");
  for (int64_t row = 2; std::getline(text, line); ++row) {
    if (line.find_first_not_of(" \r") == std::string::npos) continue;
    const auto cells = split(line);
    const auto number = [&](std::size_t place, double limit) {
      double value = std::numeric_limits<double>::quiet_NaN();
      if (place < cells.size()) {
        const std::string& cell = cells[place];
        std::from_chars(cell.data(), cell.data() + cell.size(), value);
      }
      node.check(std::abs(value) <= limit, "stations", "{}:{}: expected a position in degrees",
                 path.string(), row);
      return value;
    };
    way.station_lat.push_back(number(lat, 90));
    way.station_lon.push_back(number(lon, 360));
  }
  node.check(!way.station_lat.empty(), "stations", "{} holds no station", path.string());
}

}  // namespace

Network draw_network(const std::vector<NetworkOptions>& ways, Random& random) {
  std::vector<double> weights;
  for (const auto& way : ways) weights.push_back(way.weight);
  const NetworkOptions& way = ways[static_cast<std::size_t>(random.weighted(weights))];
  Network network;
  network.kind = way.kind;
  switch (way.kind) {
    case NetworkKind::stations:
      HALCYON_CHECK(!way.station_lon.empty() && way.station_lon.size() == way.station_lat.size() &&
                        !way.drop.empty(),
                    "draw_network", "expected stations and shares to leave out");
      add_stations(network, way, random);
      break;
    case NetworkKind::uniform:
      for (int64_t i = whole(way.count, random); i > 0; --i) {
        const double lon = random.uniform(way.lon.low, way.lon.high);
        add_site(network, way, lon, random.uniform(way.lat.low, way.lat.high));
      }
      break;
    case NetworkKind::clustered:
      add_clusters(network, way, random);
      break;
  }
  const bool varied = random.chance(way.varied_probability);
  for (std::size_t i = 0; i < network.lon.size(); ++i) {
    network.error.push_back(varied ? random.uniform(way.varied.low, way.varied.high) : way.error);
  }
  return network;
}

NetworkOptions network_options(const config::Node& node) {
  NetworkOptions way;
  way.kind = node.choice("kind", kKinds);
  way.weight = node.optional<double>("weight", way.weight, config::at_least(0));
  way.lon = interval(node, "lon", way.lon, config::between(-360, 360));
  way.lat = interval(node, "lat", way.lat, config::between(-90, 90));
  if (way.kind == NetworkKind::stations) {
    read_stations(node, way);
    way.drop = node.optional<std::vector<double>>("drop", way.drop, config::between(0, 1));
    node.check(!way.drop.empty(), "drop", "expected at least one share");
    way.jitter = node.optional<double>("jitter", way.jitter, config::at_least(0));
    way.jitter_probability = node.optional<double>("jitter_probability", 0, config::between(0, 1));
  } else {
    way.count = interval(node, "count", way.count, config::between(1, 1e7));
  }
  if (way.kind == NetworkKind::clustered) {
    way.clusters = interval(node, "clusters", way.clusters, config::between(1, 1e6));
    way.spread_lat = node.optional<double>("spread_lat", way.spread_lat, config::at_least(0));
    way.spread_lon = node.optional<double>("spread_lon", way.spread_lon, config::at_least(0));
  }
  way.error = node.optional<double>("error", way.error, config::positive());
  way.varied_probability = node.optional<double>("varied_probability", 0, config::between(0, 1));
  way.varied = interval(node, "varied_errors", way.varied, config::positive());
  return way;
}

at::Tensor simulate_observations(const at::Tensor& truth, const Network& network, double missing,
                                 Random& random) {
  const auto sites = static_cast<int64_t>(network.size());
  HALCYON_CHECK(truth.dim() == 2 && truth.size(1) == sites, "simulate_observations",
                "expected truth (T, {}), got {} dimensions", sites, truth.dim());
  HALCYON_CHECK(missing >= 0 && missing <= 1, "simulate_observations",
                "expected a probability, got {}", missing);
  at::Tensor values = truth.to(at::kDouble).contiguous().clone();
  double* v = values.mutable_data_ptr<double>();
  for (int64_t t = 0; t < truth.size(0); ++t) {
    for (int64_t i = 0; i < sites; ++i, ++v) {
      *v += network.error[static_cast<std::size_t>(i)] * random.normal();
      if (random.chance(missing)) *v = std::numeric_limits<double>::quiet_NaN();
    }
  }
  return values;
}

}  // namespace halcyon::training
