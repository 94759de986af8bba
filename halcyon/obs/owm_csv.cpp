// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "halcyon/base/csv.h"
#include "halcyon/base/error.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/rows.h"
#include "halcyon/obs/station_table.h"

// The city temperatures as a wide table: a line for each time ("datetime", UTC), a column of
// kelvins for each station. Positions stand in a table of stations (station, lat, lon) beside it.
namespace halcyon::obs {
namespace {

// R and pandas may put a column of row numbers without a name, or with pandas' own, before the
// times.
std::size_t time_column(const std::vector<std::string>& header) {
  const bool numbered = header.size() > 1 && (header[0].empty() || header[0] == "Unnamed: 0");
  return numbered ? 1 : 0;
}

// Also with a wrong separator, which parse_csv refuses by name.
bool recognises(const OpenFile& file) {
  if (file.netcdf) return false;
  const auto header = csv_header(file.head);
  if (header.empty()) return false;
  const std::string_view first = header[time_column(header)];
  return (first == "datetime" && header.size() > 1) || first.starts_with("datetime;") ||
         first.starts_with("datetime\t");
}

// us26_temperature_6h_2013_2014.csv -> us26_stations.csv in the same folder
std::filesystem::path stations_beside(const std::filesystem::path& path) {
  std::filesystem::path name = path.filename();
  auto stem = name.string();
  stem = stem.substr(0, stem.find('_'));
  if (stem == name) {
    while (name.has_extension()) name = name.stem();
    stem = name.string();
  }
  const auto guess = path.parent_path() / (stem + "_stations.csv");
  HALCYON_CHECK_KIND(std::filesystem::exists(guess), input, "owm_csv",
                     "{}: expected the positions of its stations in {}, which is not there; name "
                     "the file under observations.stations or with --stations",
                     path.string(), guess.string());
  return guess;
}

Content read(const OpenFile& file, const ReadOptions& options) {
  Content content;
  const auto& wanted = options.variables;
  if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), "t2m") == wanted.end()) {
    content.table = Rows().table({});
    return content;
  }
  const auto csv = read_csv(file.path);
  const auto when = time_column(csv.header);
  HALCYON_CHECK_KIND(csv.header[when] == "datetime", input, "owm_csv",
                     "{}: expected the first column datetime, got {}", file.path.string(),
                     csv.header[when]);
  const auto stations =
      read_stations(options.stations.empty() ? stations_beside(file.path) : options.stations);
  std::vector<std::size_t> place(csv.header.size());
  for (std::size_t c = when + 1; c < csv.header.size(); ++c)
    place[c] = stations.place(csv.header[c], file.path.string());
  Rows rows;
  auto& missing = content.missing["t2m"];
  const auto t2m = variable_number("t2m"), land = platform_number("land_station");
  for (std::size_t r = 0; r < csv.rows.size(); ++r) {
    const auto time = to_ns(csv.time(r, when));
    for (std::size_t c = when + 1; c < csv.header.size(); ++c) {
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
