// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/station_series.h"

#include <ATen/ops/tensor.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <map>

#include "halcyon/base/csv.h"
#include "halcyon/base/error.h"
#include "halcyon/base/time.h"

namespace halcyon::verify {

StationSeries read_station_series(const std::filesystem::path& stations,
                                  const std::filesystem::path& series) {
  constexpr const char* operation = "read_station_series";
  const Csv places = read_csv(stations), table = read_csv(series);
  const std::size_t station = places.column("station"), lat = places.column("lat"),
                    lon = places.column("lon");
  std::map<std::string, std::pair<double, double>> place_of;
  for (std::size_t row = 0; row < places.rows.size(); ++row) {
    const double at_lat = places.number(row, lat), at_lon = places.number(row, lon);
    HALCYON_CHECK_KIND(std::abs(at_lat) <= 90 && std::abs(at_lon) <= 360, input, operation,
                       "{}: expected a place on the sphere, got {} N {} E", places.where(row),
                       at_lat, at_lon);
    place_of[places.rows[row][station]] = {at_lon, at_lat};
  }

  StationSeries out;
  std::vector<double> lons, lats, values;
  for (std::size_t column = 1; column < table.header.size(); ++column) {
    const auto found = place_of.find(table.header[column]);
    HALCYON_CHECK_KIND(found != place_of.end(), input, operation,
                       "{}: expected stations of {}, got {}", series.string(), stations.string(),
                       table.header[column]);
    out.stations.push_back(found->first);
    lons.push_back(found->second.first);
    lats.push_back(found->second.second);
  }
  HALCYON_CHECK_KIND(!out.stations.empty() && !table.rows.empty(), input, operation,
                     "{}: expected columns of stations and rows of times", series.string());
  for (std::size_t row = 0; row < table.rows.size(); ++row) {
    try {
      out.times.push_back(parse_time(table.rows[row][0]));
    } catch (const Error& error) {
      throw Error(ErrorKind::input, table.where(row) + ": " + error.what());
    }
    HALCYON_CHECK_KIND(row == 0 || out.times[row - 1] < out.times[row], input, operation,
                       "{}: expected ascending times, got {}", table.where(row),
                       table.rows[row][0]);
    for (std::size_t column = 1; column < table.header.size(); ++column)
      values.push_back(table.number(row, column));
  }
  out.lon = at::tensor(lons, at::kDouble);
  out.lat = at::tensor(lats, at::kDouble);
  out.values = at::tensor(values, at::kDouble)
                   .view({static_cast<int64_t>(out.times.size()),
                          static_cast<int64_t>(out.stations.size())});
  return out;
}

}  // namespace halcyon::verify
