// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <cmath>
#include <map>

#include "halcyon/base/error.h"
#include "halcyon/obs/features.h"

namespace halcyon::obs {
namespace {

std::map<std::string, Layout, std::less<>>& registry() {
  static std::map<std::string, Layout, std::less<>> layouts;
  return layouts;
}

Layout healda(int64_t width, std::string description) {
  return {std::to_string(width), std::move(description), width,
          [width](const Table& table, const at::Tensor& target, const FeatureContext&) {
            return float_metadata(metadata_of(table, target), width);
          }};
}

const bool registered =
    register_layout(healda(28, "HealDA, standard: no latitude")) &&
    register_layout(
        healda(30, "HealDA, extended: satellite or conventional in the same columns")) &&
    register_layout(healda(50, "HealDA v2: satellite and conventional in columns of their own"));

}  // namespace

bool register_layout(Layout layout) {
  const std::string name = layout.name;
  HALCYON_ASSERT(registry().emplace(name, std::move(layout)).second);
  return true;
}

std::vector<std::string> feature_layouts() {
  std::vector<std::string> names;
  for (const auto& [name, layout] : registry()) names.push_back(name);
  return names;
}

const Layout& feature_layout(std::string_view name) {
  const auto found = registry().find(name);
  HALCYON_CHECK(found != registry().end(), "features", "expected a layout of {}, got \"{}\"",
                fmt::join(feature_layouts(), ", "), name);
  return found->second;
}

Metadata metadata_of(const Table& table, const at::Tensor& target_time_sec) {
  const auto angle = [&](const char* name) {
    return table.has(name) ? table[name] : at::full({table.rows()}, NAN, at::kFloat);
  };
  return {target_time_sec,     table["time_ns"],          table["lon"],
          table["lat"],        table["height"],           table["pressure"],
          angle("scan_angle"), angle("sat_zenith_angle"), angle("sol_zenith_angle")};
}

}  // namespace halcyon::obs
