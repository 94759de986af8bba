// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

// What is observed and from where: the numbers in the columns variable, platform and provider_flag.
// Files hold names, never these numbers.
namespace halcyon::obs {

struct Variable {
  std::string_view name;           // of configuration and files: "t2m"
  std::string_view units;          // of its values in a table
  std::string_view standard_name;  // CF
  double min_valid, max_valid;     // beyond, no report can be right
};

// The place in the list is the variable's number. New ones go to its end.
std::span<const Variable> variables();
// Error(argument) for a number that is not in the list.
const Variable& variable(int32_t number);
// Error(argument) with all names for an unknown one.
int32_t variable_number(std::string_view name);

// Platforms: "unknown", "land_station", "fixed_buoy", "ship_or_drifter".
std::span<const std::string_view> platforms();
int32_t platform_number(std::string_view name);

// What the provider of the file said about a datum.
enum class ProviderFlag : int32_t {
  unchecked,  // no check was made
  passed,
  suspect,   // failed a consistency check
  failed,    // failed a validity check or stands on a reject list
  repaired,  // restored by whoever made the file
};
std::span<const std::string_view> provider_flags();

}  // namespace halcyon::obs
