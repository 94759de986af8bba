// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/units.h"

#include <cctype>
#include <initializer_list>
#include <string>
#include <vector>

namespace halcyon::obs {
namespace {

struct Unit {
  std::string_view to;
  Conversion conversion;
  std::vector<std::string_view> names;
};

const std::vector<Unit>& units() {
  static const std::vector<Unit> list = {
      {"K", {1, 0}, {"k", "kelvin", "kelvins", "degk", "deg_k", "degree_kelvin", "degrees_kelvin"}},
      {"K",
       {1, 273.15},
       {"c", "celsius", "degc", "deg_c", "degree_c", "degrees_c", "degree_celsius",
        "degrees_celsius"}},
      {"Pa", {1, 0}, {"pa", "pascal", "pascals"}},
      {"Pa",
       {100, 0},
       {"hpa", "hectopascal", "hectopascals", "mb", "mbar", "millibar", "millibars"}},
      {"m s-1",
       {1, 0},
       {"m s-1", "m/s", "m s**-1", "m s^-1", "meter/sec", "meters/sec", "meter/second",
        "meters/second", "meter second-1", "meters second-1", "metre/second", "metres/second"}},
      {"m s-1", {1852.0 / 3600, 0}, {"knot", "knots", "kt", "kts"}},
      {"m", {1, 0}, {"m", "meter", "meters", "metre", "metres"}},
      {"m", {0.3048, 0}, {"ft", "foot", "feet"}},
      {"degree",
       {1, 0},
       {"degree", "degrees", "deg", "degree_true", "degrees_true", "degree_north", "degrees_north",
        "degree_n", "degrees_n", "degreen", "degreesn", "degree_east", "degrees_east", "degree_e",
        "degrees_e", "degreee", "degreese"}},
      {"%", {1, 0}, {"%", "percent"}},
      {"%", {100, 0}, {"1"}},
  };
  return list;
}

}  // namespace

std::optional<Conversion> conversion(std::string_view from, std::string_view to) {
  std::string name;
  for (const char c : from) name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const auto& unit : units()) {
    if (unit.to != to) continue;
    for (const auto& known : unit.names) {
      if (known == name) return unit.conversion;
    }
  }
  return std::nullopt;
}

}  // namespace halcyon::obs
