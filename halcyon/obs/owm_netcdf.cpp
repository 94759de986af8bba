// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "halcyon/base/cf_time.h"
#include "halcyon/base/error.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/rows.h"
#include "halcyon/obs/units.h"

// The hourly city observations as NetCDF: temperature, pressure, humidity (time, station), station
// names and positions, and a flag where the source had lost a decimal point.
namespace halcyon::obs {
namespace {

struct Source {
  const char* name;  // in the file
  const char* variable;
  const char* flag;  // 1: repaired; null: none
};
constexpr std::array<Source, 3> kSources = {
    {{"temperature", "t2m", "temperature_lost_decimal_flag"},
     // "mostly reduced to mean sea level", in whole hPa
     {"pressure", "mslp", nullptr},
     {"humidity", "rh2m", nullptr}}};

// Any one of the quantities is enough.
bool recognises(const OpenFile& file) {
  if (!file.netcdf) return false;
  const auto& nc = *file.netcdf;
  return std::any_of(kSources.begin(), kSources.end(), [&](const Source& source) {
    return nc.has(source.name) &&
           nc.variable(source.name).dimensions == std::vector<std::string>{"time", "station"};
  });
}

Content read(const OpenFile& file, const ReadOptions& options) {
  const auto& nc = *file.netcdf;
  const auto require = [&](bool condition, std::string_view what) {
    HALCYON_CHECK_KIND(condition, input, "owm_netcdf", "{}: {}", file.path.string(), what);
  };
  for (const char* name : {"time", "lat", "lon"})
    require(nc.has(name), fmt::format("expected a variable {} (the time or the position of every "
                                      "report), got none",
                                      name));
  Content content;
  const auto n_stations = nc.dimension("station"), n_times = nc.dimension("time");
  std::vector<std::string> stations(static_cast<std::size_t>(n_stations));
  if (nc.has("station")) {
    stations = nc.read_strings("station");
  } else {
    content.notes.emplace_back("no station: stations have no names");
  }
  const auto time = read_cf_time(nc, "time");
  const auto lat = nc.read_physical("lat", at::kDouble), lon = nc.read_physical("lon", at::kDouble);
  const std::vector<int64_t> per_time{n_times}, per_station{n_stations}, both{n_times, n_stations};
  require(static_cast<int64_t>(stations.size()) == n_stations && lat.sizes() == per_station &&
              lon.sizes() == per_station && time.sizes() == per_time,
          "expected a name and a position for each station and a number for each time");
  const int64_t* seconds = time.const_data_ptr<int64_t>();
  const double* y = lat.const_data_ptr<double>();
  const double* x = lon.const_data_ptr<double>();
  const auto land = platform_number("land_station");

  Rows rows;
  for (const auto& source : kSources) {
    const auto& wanted = options.variables;
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), source.variable) == wanted.end())
      continue;
    if (!nc.has(source.name)) {
      content.notes.push_back(fmt::format("no {}: no {}", source.name, source.variable));
      continue;
    }
    const auto to = variable(variable_number(source.variable)).units;
    require(nc.variable(source.name).shape == both,
            fmt::format("expected {} (time, station)", source.name));
    const auto units = nc.text(source.name, "units").value_or("none");
    const auto convert = conversion(units, to);
    require(convert.has_value(), fmt::format("{} has the units {}, which are unknown (expected "
                                             "some of {})",
                                             source.name, units, to));
    const auto values = nc.read_physical(source.name, at::kFloat);
    const float* value = values.const_data_ptr<float>();
    at::Tensor flags;
    if (source.flag && nc.has(source.flag)) {
      require(nc.variable(source.flag).shape == both,
              fmt::format("expected {} (time, station)", source.flag));
      flags = nc.read_integers(source.flag, 0).to(at::kBool).contiguous();
    } else if (source.flag) {
      content.notes.push_back(
          fmt::format("no {}: no {} is marked as repaired", source.flag, source.variable));
    }
    const bool* flag = flags.defined() ? flags.const_data_ptr<bool>() : nullptr;
    const auto number = variable_number(source.variable);
    auto& missing = content.missing[source.variable];
    for (int64_t t = 0; t < n_times; ++t) {
      const auto ns = to_ns(seconds[t]);
      for (int64_t s = 0; s < n_stations; ++s, ++value) {
        const bool repaired = flag && flag[t * n_stations + s];
        if (std::isnan(*value)) {
          ++missing;
          continue;
        }
        rows.add({ns, y[s], x[s], static_cast<float>((*convert)(*value)), number, land, NAN,
                  repaired ? ProviderFlag::repaired : ProviderFlag::unchecked,
                  static_cast<int32_t>(s)});
      }
    }
  }
  content.table = rows.table(stations);
  return content;
}

const bool registered =
    register_format({"owm_netcdf", "hourly city temperature, pressure and humidity (time, station)",
                     recognises, read});

}  // namespace
}  // namespace halcyon::obs
