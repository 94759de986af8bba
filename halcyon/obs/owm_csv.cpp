// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <set>

#include "halcyon/base/csv.h"
#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/rows.h"

// The city temperatures as a wide table: a line for each time ("datetime", UTC), a column of
// kelvins for each station. Positions stand in a table of stations (station, lat, lon) beside it.
namespace halcyon::obs {
namespace {

struct Stations {
  std::vector<std::string> names;
  std::vector<double> lat, lon;
};

bool recognises(const OpenFile& file) {
  return !file.netcdf && file.head.starts_with("datetime,") &&
         file.head.find('\0') == std::string::npos;
}

// us26_temperature_6h_2013_2014.csv -> us26_stations.csv in the same folder
std::filesystem::path stations_beside(const std::filesystem::path& path) {
  const auto name = path.filename().string();
  return path.parent_path() / (name.substr(0, name.find('_')) + "_stations.csv");
}

Stations read_stations(const std::filesystem::path& path) {
  const auto csv = read_csv(path);
  const auto name = csv.column("station"), lat = csv.column("lat"), lon = csv.column("lon");
  Stations out;
  std::set<std::string> seen;
  for (std::size_t i = 0; i < csv.rows.size(); ++i) {
    const auto& station = csv.rows[i][name];
    HALCYON_CHECK_KIND(seen.insert(station).second, input, "owm_csv",
                       "{}: station {} is there twice", csv.where(i), station);
    const double y = csv.number(i, lat), x = csv.number(i, lon);
    HALCYON_CHECK_KIND(std::abs(y) <= 90 && x >= -180 && x <= 360, input, "owm_csv",
                       "{}: expected a position in degrees, got {}, {}", csv.where(i), y, x);
    out.names.push_back(station);
    out.lat.push_back(y);
    out.lon.push_back(x);
  }
  return out;
}

int64_t time_of(const Csv& csv, std::size_t row) {
  try {
    return to_ns(parse_time(csv.rows[row][0]));
  } catch (const Error& e) {
    throw_error(ErrorKind::input, "owm_csv", fmt::format("{}: {}", csv.where(row), e.what()));
  }
}

Content read(const OpenFile& file, const ReadOptions& options) {
  Content content;
  const auto& wanted = options.variables;
  if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), "t2m") == wanted.end()) {
    content.table = Rows().table({});
    return content;
  }
  const auto csv = read_csv(file.path);
  HALCYON_CHECK_KIND(!csv.header.empty() && csv.header[0] == "datetime", input, "owm_csv",
                     "{}: expected the first column datetime", file.path.string());
  const auto stations =
      read_stations(options.stations.empty() ? stations_beside(file.path) : options.stations);
  std::vector<std::size_t> place(csv.header.size());
  for (std::size_t c = 1; c < csv.header.size(); ++c) {
    const auto found = std::find(stations.names.begin(), stations.names.end(), csv.header[c]);
    HALCYON_CHECK_KIND(found != stations.names.end(), input, "owm_csv",
                       "{}: station {} has no position in the table of stations",
                       file.path.string(), csv.header[c]);
    place[c] = static_cast<std::size_t>(found - stations.names.begin());
  }
  Rows rows;
  auto& missing = content.missing["t2m"];
  const auto t2m = variable_number("t2m"), land = platform_number("land_station");
  for (std::size_t r = 0; r < csv.rows.size(); ++r) {
    const auto time = time_of(csv, r);
    for (std::size_t c = 1; c < csv.header.size(); ++c) {
      if (csv.missing(r, c)) {
        ++missing;
        continue;
      }
      const auto s = place[c];
      rows.add({time, stations.lat[s], stations.lon[s], static_cast<float>(csv.number(r, c)), t2m,
                land, NAN, ProviderFlag::unchecked, static_cast<int32_t>(s)});
    }
  }
  content.table = rows.table(stations.names);
  return content;
}

const bool registered = register_format(
    {"owm_csv", "city temperatures, a CSV line for each time and a column for each station",
     recognises, read});

}  // namespace
}  // namespace halcyon::obs
