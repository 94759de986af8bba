// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "halcyon/base/cf_time.h"
#include "halcyon/base/error.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/rows.h"
#include "halcyon/obs/units.h"

// Surface files of NOAA's MADIS, METAR and marine: a record a report, each element with a
// one-letter summary of the quality checks (DD, AWIPS TSP 88-21-R2).
namespace halcyon::obs {
namespace {

struct Source {
  const char* name;
  const char* variable;
};
constexpr std::array<Source, 4> kScalars = {{{"temperature", "t2m"},
                                             {"dewpoint", "td2m"},
                                             {"seaLevelPress", "mslp"},
                                             {"stationPress", "ps"}}};

// Variables that only files of the sea have.
constexpr std::array<const char*, 3> kMarine = {"rawMaritime", "waveHeight", "seaSurfaceTemp"};

// Any of these may be absent, so that some must be there. Reports of aircraft have an altitude and
// nothing of what only stations have.
bool recognises(const OpenFile& file) {
  if (!file.netcdf) return false;
  const auto& nc = *file.netcdf;
  const auto count = [&](std::initializer_list<const char*> names) {
    return std::count_if(names.begin(), names.end(), [&](const char* name) {
      return nc.has(name) && !nc.variable(name).dimensions.empty() &&
             nc.variable(name).dimensions[0] == "recNum";
    });
  };
  const auto of_stations = count({"stationName", "elevation", "seaLevelPress", "stationPress"});
  const auto of_reports =
      count({"latitude", "longitude", "timeObs", "temperature", "dewpoint", "windDir"});
  return of_stations >= 1 && of_stations + of_reports >= 4 && count({"altitude"}) == 0;
}

ProviderFlag flag_of(char summary) {
  switch (summary) {
    case 'C':
    case 'S':
    case 'V':
    case 'K':
    case 'G':
      return ProviderFlag::passed;
    case 'Q':
    case 'k':
      return ProviderFlag::suspect;
    case 'X':
    case 'B':
      return ProviderFlag::failed;
    default:
      return ProviderFlag::unchecked;
  }
}

// Passed only when both are, failed when one is.
ProviderFlag worse(ProviderFlag a, ProviderFlag b) {
  for (const auto flag : {ProviderFlag::failed, ProviderFlag::suspect, ProviderFlag::unchecked}) {
    if (a == flag || b == flag) return flag;
  }
  return ProviderFlag::passed;
}

class Reports {
 public:
  explicit Reports(const OpenFile& file) : file_(file), nc_(*file.netcdf) {
    records_ = nc_.dimension("recNum");
  }

  int64_t records() const { return records_; }

  // A variable that nothing can do without: purpose is what it gives.
  void need(const std::string& name, std::string_view purpose) const {
    require(nc_.has(name), fmt::format("expected a variable {} ({}), got none", name, purpose));
  }

  // One element of every report as double in the units to, NaN where it is missing. Units may be
  // absent where only one is possible.
  at::Tensor element(const std::string& name, std::string_view to, bool units_needed = true) const {
    check_shape(name);
    auto values = nc_.read_physical(name, at::kDouble).flatten();
    const auto units = nc_.text(name, "units").value_or("");
    if (units.empty() && !units_needed) return values;
    require(!units.empty(), fmt::format("expected units of {}, got none", name));
    const auto convert = conversion(units, to);
    require(convert.has_value(),
            fmt::format("{} has the units {}, which are unknown (expected some of {})", name, units,
                        to));
    return values.mul_(convert->scale).add_(convert->offset);
  }

  // The summary of the checks of each report's element; 'Z' (none) where the file has no such.
  std::string checks(const std::string& name, Content& content) const {
    const auto summary = name + "DD";
    std::string out(static_cast<std::size_t>(records_), 'Z');
    if (!nc_.has(summary)) {
      content.notes.push_back(fmt::format("no {}: {} is unchecked", summary, name));
      return out;
    }
    check_shape(summary);
    const auto letters = nc_.read_strings(summary, true);
    for (std::size_t i = 0; i < letters.size(); ++i) {
      if (!letters[i].empty()) out[i] = letters[i][0];
    }
    return out;
  }

  // Of the stations, in m; NaN where nothing tells.
  at::Tensor heights(Content& content) const {
    const auto unknown = [&](const std::string& why) {
      content.notes.push_back(why + ": heights of stations are unknown");
      return at::full({records_}, NAN, at::kDouble);
    };
    if (!nc_.has("elevation")) return unknown("no elevation");
    const auto units = nc_.text("elevation", "units").value_or("none");
    if (!conversion(units, "m")) return unknown("elevation in the units " + units);
    return element("elevation", "m");
  }

  std::vector<int32_t> platforms(Content& content) const {
    const bool marine = std::any_of(kMarine.begin(), kMarine.end(),
                                    [&](const char* name) { return nc_.has(name); });
    std::vector<int32_t> out(static_cast<std::size_t>(records_),
                             platform_number(marine ? "unknown" : "land_station"));
    if (!nc_.has("dataPlatformType")) {
      if (marine) content.notes.emplace_back("no dataPlatformType: kinds of platforms are unknown");
      return out;
    }
    check_shape("dataPlatformType");
    const auto types = nc_.read_integers("dataPlatformType", -1).flatten();
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto type = types.const_data_ptr<int64_t>()[i];
      out[i] = platform_number(type == 0   ? "fixed_buoy"
                               : type == 1 ? "ship_or_drifter"
                                           : "unknown");
    }
    return out;
  }

  std::vector<std::string> stations(Content& content) const {
    if (!nc_.has("stationName")) {
      content.notes.emplace_back("no stationName: stations have no names");
      return std::vector<std::string>(static_cast<std::size_t>(records_));
    }
    auto names = nc_.read_strings("stationName");
    require(static_cast<int64_t>(names.size()) == records_, "expected one stationName a record");
    return names;
  }

  void require(bool condition, std::string_view what) const {
    HALCYON_CHECK_KIND(condition, input, "madis", "{}: {}", file_.path.string(), what);
  }

 private:
  // One a record; xarray writes single characters with a dimension of length 1.
  void check_shape(const std::string& name) const {
    const auto& shape = nc_.variable(name).shape;
    require(shape == std::vector<int64_t>{records_} || shape == std::vector<int64_t>{records_, 1},
            fmt::format("expected one {} a record", name));
  }

  const OpenFile& file_;
  const NetcdfReader& nc_;
  int64_t records_ = 0;
};

class Collector {
 public:
  Collector(const Reports& reports, const NetcdfReader& nc) {
    reports.need("latitude", "of the position");
    reports.need("longitude", "of the position");
    reports.need("timeObs", "the time of observation");
    lat_ = reports.element("latitude", "degree", false);
    lon_ = reports.element("longitude", "degree", false);
    time_ = read_cf_time(nc, "timeObs").flatten();
    height_ = reports.heights(content);
    platform_ = reports.platforms(content);
    reports.require(time_.numel() == reports.records(), "expected one timeObs a record");
  }

  // Missing values are counted and left out.
  void add(const std::string& variable, int64_t i, double value, ProviderFlag flag) {
    auto& missing = content.missing[variable];
    if (std::isnan(value)) {
      ++missing;
      return;
    }
    rows_.add({to_ns(time_.const_data_ptr<int64_t>()[i]), lat_.const_data_ptr<double>()[i],
               lon_.const_data_ptr<double>()[i], static_cast<float>(value),
               variable_number(variable), platform_[static_cast<std::size_t>(i)],
               static_cast<float>(height_.const_data_ptr<double>()[i]), flag,
               static_cast<int32_t>(i)});
  }

  Content finish(const std::vector<std::string>& station_of_record) {
    auto table = rows_.table(station_of_record);
    // one name for all records of a station
    std::vector<std::string> names;
    names.reserve(static_cast<std::size_t>(table.rows()));
    for (int64_t i = 0; i < table.rows(); ++i) names.push_back(table.text("station", i));
    table.set_text("station", names);
    content.table = std::move(table);
    return std::move(content);
  }

  Content content;

 private:
  at::Tensor lat_, lon_, height_, time_;
  std::vector<int32_t> platform_;
  Rows rows_;
};

void add_wind(const Reports& reports, Collector& collector, bool u, bool v) {
  constexpr double radians = M_PI / 180;
  const auto from = reports.element("windDir", "degree"),
             speed = reports.element("windSpeed", "m s-1");
  const auto from_checks = reports.checks("windDir", collector.content),
             speed_checks = reports.checks("windSpeed", collector.content);
  for (int64_t i = 0; i < reports.records(); ++i) {
    const double s = speed.const_data_ptr<double>()[i];
    double d = from.const_data_ptr<double>()[i];
    const auto k = static_cast<std::size_t>(i);
    if (!(d >= 0 && d <= 360)) d = NAN;  // 990: variable
    auto flag = worse(flag_of(from_checks[k]), flag_of(speed_checks[k]));
    if (s == 0) {  // calm has no direction
      d = 0;
      flag = flag_of(speed_checks[k]);
    }
    if (u) collector.add("u10", i, -s * std::sin(d * radians), flag);
    if (v) collector.add("v10", i, -s * std::cos(d * radians), flag);
  }
}

Content read(const OpenFile& file, const ReadOptions& options) {
  const Reports reports(file);
  Collector collector(reports, *file.netcdf);
  const auto wanted = [&](std::string_view variable) {
    const auto& list = options.variables;
    return list.empty() || std::find(list.begin(), list.end(), variable) != list.end();
  };
  auto& notes = collector.content.notes;
  for (const auto& source : kScalars) {
    if (!wanted(source.variable)) continue;
    if (!file.netcdf->has(source.name)) {
      notes.push_back(fmt::format("no {}: no {}", source.name, source.variable));
      continue;
    }
    const auto values =
        reports.element(source.name, variable(variable_number(source.variable)).units);
    const auto checks = reports.checks(source.name, collector.content);
    for (int64_t i = 0; i < reports.records(); ++i) {
      collector.add(source.variable, i, values.const_data_ptr<double>()[i],
                    flag_of(checks[static_cast<std::size_t>(i)]));
    }
  }
  if (wanted("u10") || wanted("v10")) {
    if (file.netcdf->has("windDir") && file.netcdf->has("windSpeed")) {
      add_wind(reports, collector, wanted("u10"), wanted("v10"));
    } else {
      notes.emplace_back("no windDir or no windSpeed: no wind");
    }
  }
  const auto stations = reports.stations(collector.content);
  return collector.finish(stations);
}

const bool registered = register_format(
    {"madis", "MADIS METAR and marine reports, NetCDF, also gzipped", recognises, read});

}  // namespace
}  // namespace halcyon::obs
