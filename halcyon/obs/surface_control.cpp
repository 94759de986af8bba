// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "halcyon/base/error.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/same_station.h"
#include "halcyon/obs/variables.h"
#include "halcyon/sphere/healpix.h"

namespace halcyon::obs {
namespace {

constexpr const char* kWhere = "quality_control";
constexpr int64_t kNsPerSecond = 1'000'000'000;

class Judge {
 public:
  Judge(const Table& table, const SurfaceRules& rules)
      : table_(table),
        rules_(rules),
        time_(table.values<int64_t>("time_ns")),
        lat_(table.values<double>("lat")),
        lon_(table.values<double>("lon")),
        value_(table.values<float>("value")),
        height_(table.values<float>("height")),
        error_sd_(table.values<float>("error_sd")),
        variable_(table.values<int32_t>("variable")),
        platform_(table.values<int32_t>("platform")),
        flag_(table.values<int32_t>("provider_flag")),
        station_(table.values<int32_t>("station")),
        duplicates_(table),
        blocked_places_(table, kSamePlace) {
    for (const auto& v : variables()) range_.push_back({v.min_valid, v.max_valid});
    for (const auto& [name, range] : rules.range) {
      HALCYON_CHECK(range[0] <= range[1], kWhere,
                    "expected an ascending range for {}, got {} to {}", name, range[0], range[1]);
      range_[static_cast<std::size_t>(variable_number(name))] = range;
    }
    used_.assign(variables().size(), rules.variables.empty());
    for (const auto& name : rules.variables)
      used_[static_cast<std::size_t>(variable_number(name))] = true;
    const auto& names = table.column("station").names;
    for (const auto& name : names)
      blocked_.push_back(std::find(rules.blocked_stations.begin(), rules.blocked_stations.end(),
                                   name) != rules.blocked_stations.end());
    if (rules.gross_limit) {
      HALCYON_CHECK(*rules.gross_limit > 0, kWhere, "expected a positive gross_limit, got {}",
                    *rules.gross_limit);
      background_ = table.values<float>("background");
      background_sd_ = table.values<float>("background_sd");
    }
    find_pixels();
    find_blocked_places();
  }

  Reason operator()(std::size_t i) {
    const auto v = static_cast<std::size_t>(variable_[i]);
    if (variable_[i] < 0 || v >= range_.size()) return Reason::unknown_channel;
    if (platform_[i] < 0 || platform_[i] >= static_cast<int32_t>(platforms().size()))
      return Reason::unknown_platform;
    if (!used_[v]) return Reason::channel_dropped;
    if (blocked_[static_cast<std::size_t>(station_[i])]) return Reason::blocked_station;
    if (time_[i] == kMissingTimeNs) return Reason::time;
    if (!positioned(i)) return Reason::position;
    const auto row = static_cast<int64_t>(i);
    if (!blocked_places_.named(row) && blocked_places_.find(row, 0) >= 0)
      return Reason::blocked_station;
    if ((rules_.begin && time_[i] <= *rules_.begin * kNsPerSecond) ||
        (rules_.end && time_[i] > *rules_.end * kNsPerSecond))
      return Reason::outside_window;
    if (rules_.region && !inside_[i]) return Reason::outside_region;
    if (!std::isfinite(value_[i])) return Reason::not_finite;
    if (value_[i] < range_[v][0] || value_[i] > range_[v][1]) return Reason::outside_valid_range;
    if (!accepted(flag_[i])) return Reason::provider_flag;
    if (rules_.max_height && height_[i] > *rules_.max_height) return Reason::height;
    if (rules_.gross_limit && gross(i)) return Reason::gross_departure;
    if (rules_.drop_duplicates && duplicates_.seen(row)) return Reason::duplicate;
    return Reason::kept;
  }

 private:
  bool positioned(std::size_t i) const {
    return std::abs(lat_[i]) <= 90 && lon_[i] >= -180 && lon_[i] <= 360;
  }

  bool accepted(int32_t flag) const {
    switch (static_cast<ProviderFlag>(flag)) {
      case ProviderFlag::passed:
        return true;
      case ProviderFlag::unchecked:
        return rules_.accept_unchecked;
      case ProviderFlag::suspect:
        return rules_.accept_suspect;
      case ProviderFlag::repaired:
        return rules_.accept_repaired;
      default:
        return false;
    }
  }

  bool gross(std::size_t i) const {
    const double departure = double{value_[i]} - background_[i];
    const double sd = std::hypot(double{error_sd_[i]}, double{background_sd_[i]});
    return !(std::abs(departure) <= *rules_.gross_limit * sd);  // NaN is gross too
  }

  void find_pixels() {
    if (!rules_.region) return;
    const auto rows = table_.rows();
    const auto good = at::empty({rows}, at::kBool);
    auto* to = good.mutable_data_ptr<bool>();
    for (int64_t i = 0; i < rows; ++i) to[i] = positioned(static_cast<std::size_t>(i));
    const auto pixels = healpix::ang2pix(rules_.region->level(), table_["lon"].where(good, 0.0),
                                         table_["lat"].where(good, 0.0));
    const auto inside = (rules_.region->index_of(pixels) >= 0).contiguous();
    const bool* from = inside.const_data_ptr<bool>();
    inside_.assign(from, from + rows);
  }

  void find_blocked_places() {
    const auto some = std::find(blocked_.begin(), blocked_.end(), true) != blocked_.end();
    for (std::size_t i = 0; some && i < station_.size(); ++i) {
      const auto row = static_cast<int64_t>(i);
      if (blocked_[static_cast<std::size_t>(station_[i])] && positioned(i) &&
          blocked_places_.find(row, 0) < 0)
        blocked_places_.add(row, 0);
    }
  }

  const Table& table_;
  const SurfaceRules& rules_;
  std::span<const int64_t> time_;
  std::span<const double> lat_, lon_;
  std::span<const float> value_, height_, error_sd_, background_, background_sd_;
  std::span<const int32_t> variable_, platform_, flag_, station_;
  std::vector<std::array<double, 2>> range_;
  std::vector<bool> used_, blocked_, inside_;
  Duplicates duplicates_;
  StationIndex blocked_places_;  // that rows without an identifier are compared with
};

}  // namespace

at::Tensor quality_control(const Table& table, const SurfaceRules& rules) {
  check_observations(table, kWhere);
  for (const auto& limit : {rules.begin, rules.end})
    HALCYON_CHECK(!limit || std::abs(*limit) < (int64_t{1} << 33), kWhere,
                  "expected a window of the years 1697 to 2242, got {} s since 1970", *limit);
  Judge judge(table, rules);
  auto codes = at::empty({table.rows()}, at::kInt);
  auto* out = codes.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < table.rows(); ++i)
    out[i] = static_cast<int32_t>(judge(static_cast<std::size_t>(i)));
  return codes;
}

}  // namespace halcyon::obs
