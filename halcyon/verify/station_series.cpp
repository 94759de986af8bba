// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/station_series.h"

#include <ATen/ops/tensor.h>

#include "halcyon/base/csv.h"
#include "halcyon/base/error.h"
#include "halcyon/obs/station_table.h"

namespace halcyon::verify {

StationSeries read_station_series(const std::filesystem::path& stations,
                                  const std::filesystem::path& series) {
  constexpr const char* operation = "read_station_series";
  const auto places = obs::read_stations(stations);
  const Csv table = read_csv(series);
  // a column of row numbers without a name may come before the times (R, pandas)
  const std::size_t when = table.header.size() > 1 && table.header[0].empty() &&
                                   (table.header[1] == "datetime" || table.header[1] == "time")
                               ? 1
                               : 0;
  StationSeries out;
  std::vector<double> lons, lats, values;
  for (std::size_t column = when + 1; column < table.header.size(); ++column) {
    const auto place = places.place(table.header[column], series.string());
    out.stations.push_back(table.header[column]);
    lons.push_back(places.lon[place]);
    lats.push_back(places.lat[place]);
  }
  HALCYON_CHECK_KIND(!out.stations.empty() && !table.rows.empty(), input, operation,
                     "{}: expected columns of stations and rows of times", series.string());
  for (std::size_t row = 0; row < table.rows.size(); ++row) {
    out.times.push_back(table.time(row, when));
    HALCYON_CHECK_KIND(row == 0 || out.times[row - 1] < out.times[row], input, operation,
                       "{}: expected ascending times, got {}", table.where(row),
                       table.text(row, when));
    for (std::size_t column = when + 1; column < table.header.size(); ++column)
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
