// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "halcyon/base/cf_time.h"
#include "halcyon/base/error.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/rows.h"

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

bool recognises(const OpenFile& file) {
  if (!file.netcdf) return false;
  const auto& nc = *file.netcdf;
  for (const char* name :
       {"stationName", "latitude", "longitude", "elevation", "timeObs", "seaLevelPress"}) {
    if (!nc.has(name) || nc.variable(name).dimensions.empty() ||
        nc.variable(name).dimensions[0] != "recNum")
      return false;
  }
  return true;
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

  // One element of every report as double, NaN where it is missing, by its units attribute in K,
  // Pa, m s-1, m or degrees.
  at::Tensor element(const std::string& name) const {
    require(nc_.variable(name).shape == std::vector<int64_t>{records_},
            fmt::format("expected one {} a record", name));
    auto values = nc_.read_physical(name, at::kDouble);
    const auto units = nc_.text(name, "units").value_or("none");
    if (units == "celsius" || units == "degC") return values.add_(273.15);
    if (units == "hectopascal" || units == "hPa" || units == "millibar" || units == "mb")
      return values.mul_(100);
    static constexpr std::array<std::string_view, 14> as_they_are = {
        "kelvin", "K",     "pascal", "Pa",     "meter/sec", "meters/second", "m/s",
        "m s-1",  "meter", "m",      "degree", "degrees",   "degree_north",  "degree_east"};
    require(std::find(as_they_are.begin(), as_they_are.end(), units) != as_they_are.end(),
            fmt::format("{} has the units {}, which are unknown", name, units));
    return values;
  }

  // The summary of the checks of each report's element; 'Z' (none) where the file has no such.
  std::string checks(const std::string& name) const {
    const auto summary = name + "DD";
    std::string out(static_cast<std::size_t>(records_), 'Z');
    if (!nc_.has(summary)) return out;
    require(nc_.variable(summary).shape == std::vector<int64_t>{records_},
            fmt::format("expected one {} a record", summary));
    const auto letters = nc_.read_strings(summary, true);
    for (std::size_t i = 0; i < letters.size(); ++i) {
      if (!letters[i].empty()) out[i] = letters[i][0];
    }
    return out;
  }

  std::vector<int32_t> platforms() const {
    const auto land = platform_number("land_station");
    std::vector<int32_t> out(static_cast<std::size_t>(records_), land);
    if (!nc_.has("dataPlatformType")) return out;
    require(nc_.variable("dataPlatformType").shape == std::vector<int64_t>{records_},
            "expected one dataPlatformType a record");
    const auto types = nc_.read("dataPlatformType").to(at::kLong);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto type = types.const_data_ptr<int64_t>()[i];
      out[i] = platform_number(type == 0   ? "fixed_buoy"
                               : type == 1 ? "ship_or_drifter"
                                           : "unknown");
    }
    return out;
  }

  void require(bool condition, std::string_view what) const {
    HALCYON_CHECK_KIND(condition, input, "madis", "{}: {}", file_.path.string(), what);
  }

 private:
  const OpenFile& file_;
  const NetcdfReader& nc_;
  int64_t records_ = 0;
};

class Collector {
 public:
  Collector(const Reports& reports, const NetcdfReader& nc)
      : lat_(reports.element("latitude")),
        lon_(reports.element("longitude")),
        height_(reports.element("elevation")),
        time_(read_cf_time(nc, "timeObs")),
        platform_(reports.platforms()) {
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
  const auto from = reports.element("windDir"), speed = reports.element("windSpeed");
  const auto from_checks = reports.checks("windDir"), speed_checks = reports.checks("windSpeed");
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
  for (const auto& source : kScalars) {
    if (!file.netcdf->has(source.name) || !wanted(source.variable)) continue;
    const auto values = reports.element(source.name);
    const auto checks = reports.checks(source.name);
    for (int64_t i = 0; i < reports.records(); ++i) {
      collector.add(source.variable, i, values.const_data_ptr<double>()[i],
                    flag_of(checks[static_cast<std::size_t>(i)]));
    }
  }
  if (file.netcdf->has("windDir") && file.netcdf->has("windSpeed") &&
      (wanted("u10") || wanted("v10")))
    add_wind(reports, collector, wanted("u10"), wanted("v10"));
  const auto stations = file.netcdf->read_strings("stationName");
  reports.require(static_cast<int64_t>(stations.size()) == reports.records(),
                  "expected one stationName a record");
  return collector.finish(stations);
}

const bool registered = register_format(
    {"madis", "MADIS METAR and marine reports, NetCDF, also gzipped", recognises, read});

}  // namespace
}  // namespace halcyon::obs
