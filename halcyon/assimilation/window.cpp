// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/window.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>

#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/same_station.h"

namespace halcyon::assimilation {
namespace {

using obs::Reason;

bool is(int32_t reason, Reason wanted) {
  return reason == static_cast<int32_t>(wanted);
}

}  // namespace

std::vector<int64_t> count_of_station(const obs::Table& table,
                                      const std::vector<Candidate>& candidates) {
  const auto time = table.values<int64_t>("time_ns");
  const auto variable = table.values<int32_t>("variable");
  std::vector<std::size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto key = [&](std::size_t k) {
    const auto& c = candidates[k];
    return std::tuple(c.distance, time[static_cast<std::size_t>(c.row)], c.row);
  };
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return key(a) < key(b); });

  // the nearest come first: each either leads its station or belongs to one that does
  obs::StationIndex index(table, obs::kSameName);
  std::map<int64_t, std::size_t> place;  // of a leading row among the candidates
  std::vector<std::size_t> leader(candidates.size());
  std::vector<int64_t> count(candidates.size());
  for (const auto k : order) {
    const auto row = candidates[k].row;
    const auto bucket =
        static_cast<obs::StationIndex::Bucket>(variable[static_cast<std::size_t>(row)]);
    const auto found = index.find(row, bucket);
    if (found < 0) {
      index.add(row, bucket);
      place[row] = k;
    } else {
      index.name(found, row, bucket);
    }
    leader[k] = found < 0 ? k : place.at(found);
    ++count[leader[k]];
  }
  std::vector<int64_t> out(candidates.size());
  for (std::size_t k = 0; k < out.size(); ++k)
    out[k] = leader[k] == k ? count[k] : -count[leader[k]];
  return out;
}

Window window_of(const obs::Table& table, std::span<const int64_t> seconds,
                 std::span<const int32_t> reason, int64_t analysis_time, const WindowRules& rules) {
  const auto value = table.values<float>("value");
  const auto lat = table.values<double>("lat"), lon = table.values<double>("lon");
  Window out;
  // by age, used and withheld reports apart
  std::vector<std::vector<Candidate>> competing(2 * rules.ages.size());
  std::vector<std::vector<std::size_t>> place(competing.size());
  for (std::size_t i = 0; i < seconds.size(); ++i) {
    const int64_t age = analysis_time - seconds[i];
    const auto distance = [&](int64_t wanted) { return std::abs(age - wanted); };
    const auto nearest =
        std::min_element(rules.ages.begin(), rules.ages.end(),
                         [&](int64_t a, int64_t b) { return distance(a) < distance(b); });
    if (nearest == rules.ages.end() || distance(*nearest) > rules.tolerance) continue;
    const bool used = is(reason[i], Reason::kept);
    const bool verifies = is(reason[i], Reason::blocked_station) && std::isfinite(value[i]) &&
                          std::abs(lat[i]) <= 90 && std::isfinite(lon[i]);
    if (used || verifies) {
      const auto group =
          2 * static_cast<std::size_t>(nearest - rules.ages.begin()) + (used ? 0 : 1);
      competing[group].push_back({static_cast<int64_t>(i), distance(*nearest)});
      place[group].push_back(out.row.size());
    }
    out.row.push_back(static_cast<int64_t>(i));
    out.reason.push_back(reason[i]);
    out.inflation.push_back(1);
  }
  for (std::size_t g = 0; g < competing.size(); ++g) {
    const bool inflate = rules.several == SeveralReports::inflate && g % 2 == 0;
    const auto counts = count_of_station(table, competing[g]);
    for (std::size_t k = 0; k < counts.size(); ++k) {
      if (inflate) {
        out.inflation[place[g][k]] = std::sqrt(static_cast<double>(std::abs(counts[k])));
      } else if (counts[k] < 0) {
        out.reason[place[g][k]] = static_cast<int32_t>(Reason::not_nearest);
      }
    }
  }
  return out;
}

}  // namespace halcyon::assimilation
