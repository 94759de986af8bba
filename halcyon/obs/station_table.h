// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace halcyon::obs {

// The stations of files without positions: a CSV with the columns station, lat and lon.
struct StationTable {
  std::filesystem::path path;
  std::vector<std::string> names;
  std::vector<double> lat, lon;  // degrees

  // The station's place in the lists. Error(input) that begins with where (the file and line that
  // name it) when the table does not have it.
  std::size_t place(std::string_view name, std::string_view where) const;
};

// Error(input) naming file and line: a station without a name or twice, an impossible position.
StationTable read_stations(const std::filesystem::path& path);

}  // namespace halcyon::obs
