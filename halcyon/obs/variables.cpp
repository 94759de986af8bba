// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/variables.h"

#include <algorithm>
#include <array>

#include "halcyon/base/error.h"

namespace halcyon::obs {
namespace {

// Ranges: world records with a margin (WMO Weather and Climate Extremes Archive).
constexpr std::array<Variable, 7> kVariables = {{
    {"t2m", "K", "air_temperature", 180, 335},
    {"td2m", "K", "dew_point_temperature", 160, 310},
    {"mslp", "Pa", "air_pressure_at_mean_sea_level", 86000, 109500},
    {"ps", "Pa", "surface_air_pressure", 30000, 110000},
    {"u10", "m s-1", "eastward_wind", -100, 100},
    {"v10", "m s-1", "northward_wind", -100, 100},
    {"rh2m", "%", "relative_humidity", 0, 105},
}};
constexpr std::array<std::string_view, 4> kPlatforms = {"unknown", "land_station", "fixed_buoy",
                                                        "ship_or_drifter"};
constexpr std::array<std::string_view, 5> kFlags = {"unchecked", "passed", "suspect", "failed",
                                                    "repaired"};

}  // namespace

std::span<const Variable> variables() {
  return kVariables;
}
std::span<const std::string_view> platforms() {
  return kPlatforms;
}
std::span<const std::string_view> provider_flags() {
  return kFlags;
}

const Variable& variable(int32_t number) {
  HALCYON_CHECK(number >= 0 && number < static_cast<int32_t>(kVariables.size()), "variable",
                "expected a number below {}, got {}", kVariables.size(), number);
  return kVariables[static_cast<std::size_t>(number)];
}

int32_t variable_number(std::string_view name) {
  std::string names;
  for (std::size_t i = 0; i < kVariables.size(); ++i) {
    if (kVariables[i].name == name) return static_cast<int32_t>(i);
    names += (i ? ", " : "") + std::string(kVariables[i].name);
  }
  throw_error(ErrorKind::argument, "variable",
              fmt::format("expected one of {}, got \"{}\"", names, name));
}

int32_t platform_number(std::string_view name) {
  const auto found = std::find(kPlatforms.begin(), kPlatforms.end(), name);
  HALCYON_CHECK(found != kPlatforms.end(), "platform", "expected one of {}, got \"{}\"",
                fmt::join(kPlatforms, ", "), name);
  return static_cast<int32_t>(found - kPlatforms.begin());
}

}  // namespace halcyon::obs
