// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/network_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace halcyon::assimilation {
namespace {

using training::Random;

NetworkSamplerOptions options() {
  NetworkSamplerOptions o;
  o.box = {235, 290, 25, 50};
  o.stations = {{30, 240}, {35, 250}, {40, 260}, {45, 270}, {28, 280}, {48, 288}};
  o.station_share = 0.3;
  o.cluster_share = 0.2;
  o.fewest = 12;
  o.most = 40;
  return o;
}

std::vector<SimulatedNetwork> networks(const NetworkSamplerOptions& o, int count) {
  std::vector<SimulatedNetwork> list;
  for (int i = 0; i < count; ++i) {
    Random random(9, {static_cast<uint64_t>(i)});
    list.push_back(draw_network(o, random));
  }
  return list;
}

TEST(NetworkSampler, SitesAndCountsAreInRange) {
  const auto o = options();
  for (const auto& network : networks(o, 2000)) {
    const auto count = static_cast<int64_t>(network.sites.size());
    if (network.stations) {
      EXPECT_GE(count, 1);
      EXPECT_LE(count, static_cast<int64_t>(o.stations.size()));
    } else {
      EXPECT_GE(count, o.fewest);
      // clusters: fewest and up to 3/4 of most besides (docs/north_america.md)
      EXPECT_LE(count, std::max(o.most, o.fewest + o.most * 3 / 4));
    }
    for (const auto& site : network.sites) {
      EXPECT_GE(site.lat, o.box.south);
      EXPECT_LE(site.lat, o.box.north);
      EXPECT_GE(site.lon, o.box.west);
      EXPECT_LE(site.lon, o.box.east);
      EXPECT_GE(site.error_sd, o.smallest_error);
      EXPECT_LE(site.error_sd, 3.2f);
    }
  }
}

TEST(NetworkSampler, ErrorsComeInLevelsFromOneForAllToOneForEach) {
  int same = 0, different = 0;
  for (const auto& network : networks(options(), 400)) {
    if (network.sites.size() < 2) continue;
    bool all = true;
    for (const auto& site : network.sites) all &= site.error_sd == network.sites[0].error_sd;
    ++(all ? same : different);
  }
  EXPECT_GT(same, 100);
  EXPECT_GT(different, 100);
}

TEST(NetworkSampler, SharesAreThoseAskedFor) {
  const auto o = options();
  constexpr int kCount = 4000;
  int stations = 0;
  std::map<double, int> missing;
  for (const auto& network : networks(o, kCount)) {
    stations += network.stations ? 1 : 0;
    EXPECT_GE(network.missing, 0);
    EXPECT_LT(network.missing, 1);
    ++missing[network.missing];
  }
  EXPECT_NEAR(stations, o.station_share * kCount, 4 * 29);  // 4 standard deviations
  EXPECT_GT(missing.size(), 1u);
  EXPECT_TRUE(missing.contains(0));  // whole networks, too
}

TEST(NetworkSampler, KnownStationsLieWhereTheyAreUnlessMoved) {
  const auto o = options();
  int kept = 0, absent = 0, moved = 0;
  for (const auto& network : networks(o, 1000)) {
    if (!network.stations) continue;
    if (network.sites.size() < o.stations.size()) ++absent;
    for (const auto& site : network.sites) {
      bool known = false;
      for (const auto& [lat, lon] : o.stations) known |= site.lat == lat && site.lon == lon;
      ++(known ? kept : moved);
    }
  }
  EXPECT_GT(absent, 0);
  EXPECT_GT(moved, 0);
  EXPECT_GT(kept, moved);
}

TEST(NetworkSampler, NoStationsNoStationNetworks) {
  auto o = options();
  o.stations.clear();
  o.station_share = 0.9;
  for (const auto& network : networks(o, 200)) {
    EXPECT_FALSE(network.stations);
    EXPECT_GE(static_cast<int64_t>(network.sites.size()), o.fewest);
  }
}

TEST(NetworkSampler, FollowsTheSeed) {
  const auto a = networks(options(), 50), b = networks(options(), 50);
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].sites.size(), b[i].sites.size());
    EXPECT_EQ(a[i].missing, b[i].missing);
    for (std::size_t s = 0; s < a[i].sites.size(); ++s) {
      EXPECT_EQ(a[i].sites[s].lat, b[i].sites[s].lat);
      EXPECT_EQ(a[i].sites[s].lon, b[i].sites[s].lon);
      EXPECT_EQ(a[i].sites[s].error_sd, b[i].sites[s].error_sd);
    }
  }
}

}  // namespace
}  // namespace halcyon::assimilation
