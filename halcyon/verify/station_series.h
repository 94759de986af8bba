// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace halcyon::verify {

// The same quantity at fixed stations and times.
struct StationSeries {
  std::vector<std::string> stations;  // N
  at::Tensor lon, lat;                // float64 (N), degrees
  std::vector<int64_t> times;         // T, seconds since 1970, ascending
  at::Tensor values;                  // float64 (T, N), NaN where missing
};

// stations: a CSV file with the columns station, lat, lon; series: a CSV file whose first column is
// the time (ISO 8601, UTC) and whose others are stations, empty where missing. Every column must be
// a known station; the order is that of the columns. Error(input) with file and line.
StationSeries read_station_series(const std::filesystem::path& stations,
                                  const std::filesystem::path& series);

}  // namespace halcyon::verify
