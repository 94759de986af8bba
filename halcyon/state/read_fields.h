// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halcyon/state/fields.h"

namespace halcyon::state {

struct ReadOptions {
  // Names in the file, in the order wanted; empty takes every gridded variable. A variable with
  // levels becomes one a level, named NAME_LEVEL ("t_500"), and can be asked for by either name.
  std::vector<std::string> variables = {};
  // Seconds since 1970 UTC; nothing takes all. A time that the file does not hold is Error(input)
  // naming the nearest ones.
  std::optional<std::vector<int64_t>> times = std::nullopt;
  // Where variables is empty: only the first gridded one.
  bool first_only = false;
};

// Reads gridded fields from NetCDF. Latitude, longitude and time are found by units, standard_name,
// axis or name; dimensions may stand in any order, latitude may run either way and stays as it is;
// packed values and missing ones are resolved as read_physical does (NaN is missing), a repeated
// last meridian is dropped. All variables taken must share one grid and the same times (or none:
// static fields). HEALPix pixels are found by their grid mapping, in nested or ring order, all of
// the sphere or some with their numbers, and come back on their region. Everything else is
// Error(input).
Fields read_fields(const std::filesystem::path& path, const ReadOptions& options = {});

}  // namespace halcyon::state
