// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/station_table.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "halcyon/base/csv.h"
#include "halcyon/base/error.h"
#include "halcyon/base/suggest.h"

namespace halcyon::obs {
namespace {

constexpr const char* kWhere = "stations";

}  // namespace

std::size_t StationTable::place(std::string_view name, std::string_view where) const {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    const auto near = nearest(name, names);
    throw_error(ErrorKind::input, kWhere,
                fmt::format("{}: station {} has no position in {}{}", where, name, path.string(),
                            near.empty() ? "" : fmt::format(", did you mean {}?", near)));
  }
  return static_cast<std::size_t>(found - names.begin());
}

StationTable read_stations(const std::filesystem::path& path) {
  const auto csv = read_csv(path);
  const auto name = csv.column("station"), lat = csv.column("lat"), lon = csv.column("lon");
  StationTable out;
  out.path = path;
  std::map<std::string, std::size_t> line_of;
  for (std::size_t i = 0; i < csv.rows.size(); ++i) {
    const std::string station(csv.text(i, name));
    HALCYON_CHECK_KIND(!station.empty(), input, kWhere, "{}: a station without a name",
                       csv.where(i));
    const auto [first, fresh] = line_of.emplace(station, csv.line[i]);
    HALCYON_CHECK_KIND(fresh, input, kWhere, "{}: station {} is there twice, first on line {}",
                       csv.where(i), station, first->second);
    const double y = csv.number(i, lat), x = csv.number(i, lon);
    HALCYON_CHECK_KIND(std::abs(y) <= 90 && x >= -180 && x <= 360, input, kWhere,
                       "{}: expected a position in degrees, got {}, {}", csv.where(i), y, x);
    out.names.push_back(station);
    out.lat.push_back(y);
    out.lon.push_back(x);
  }
  return out;
}

}  // namespace halcyon::obs
