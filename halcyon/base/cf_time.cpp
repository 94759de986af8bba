// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/cf_time.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <string>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"

namespace halcyon {
namespace {

struct Unit {
  std::string_view name;
  double seconds;
};

constexpr std::array<Unit, 26> kUnits = {{
    {"days", 86400},
    {"day", 86400},
    {"d", 86400},
    {"hours", 3600},
    {"hour", 3600},
    {"hrs", 3600},
    {"hr", 3600},
    {"h", 3600},
    {"minutes", 60},
    {"minute", 60},
    {"mins", 60},
    {"min", 60},
    {"seconds", 1},
    {"second", 1},
    {"secs", 1},
    {"sec", 1},
    {"s", 1},
    {"milliseconds", 1e-3},
    {"millisecond", 1e-3},
    {"ms", 1e-3},
    {"microseconds", 1e-6},
    {"microsecond", 1e-6},
    {"us", 1e-6},
    {"nanoseconds", 1e-9},
    {"nanosecond", 1e-9},
    {"ns", 1e-9},
}};

// "1970-1-1 0:00:00.0 UTC" -> "1970-01-01T00:00:00Z"
std::string padded(std::string_view text) {
  std::string out, digits;
  const auto flush = [&](bool first) {
    if (digits.empty()) return;
    const std::size_t width = first ? 4 : 2;
    out.append(width > digits.size() ? width - digits.size() : 0, '0');
    out += digits;
    digits.clear();
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (std::isdigit(static_cast<unsigned char>(c))) {
      digits += c;
      continue;
    }
    flush(out.empty());
    if (c == '.') {  // a fraction of zeros
      while (i + 1 < text.size() && text[i + 1] == '0') ++i;
    } else {
      out += c;
    }
  }
  flush(out.empty());
  for (const std::string_view zone : {" UTC", "UTC", " Z", " +0:00", " +00:00"}) {
    if (out.ends_with(zone)) return out.substr(0, out.size() - zone.size()) + 'Z';
  }
  return out;
}

// How much later the day of a Julian date is than the day of the same date in our calendar: 10 days
// at the reform, less one for each earlier year that only the Julian calendar makes a leap year.
int64_t julian_offset(const CivilDate& date) {
  const int64_t year = date.month > 2 ? date.year : date.year - 1;
  return year / 100 - year / 400 - 2;
}

}  // namespace

CfTimeUnits parse_cf_units(std::string_view units, bool julian) {
  const auto since = units.find(" since ");
  HALCYON_CHECK(since != std::string_view::npos, "time units",
                "expected \"<unit> since <date>\", got \"{}\"", units);
  std::string name(units.substr(0, since));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto found = std::find_if(kUnits.begin(), kUnits.end(),
                                  [&](const Unit& unit) { return unit.name == name; });
  HALCYON_CHECK(found != kUnits.end(), "time units", "expected days to nanoseconds, got \"{}\"",
                name);
  auto date = units.substr(since + 7);
  while (!date.empty() && date.back() == ' ') date.remove_suffix(1);
  while (!date.empty() && date.front() == ' ') date.remove_prefix(1);
  int64_t reference = parse_time(padded(date));
  static const int64_t reform = parse_time("1582-10-15");
  if (julian && reference < reform)
    reference += 86400 * julian_offset(civil_from_days((reference - 86399) / 86400));
  return {found->seconds, reference};
}

at::Tensor read_cf_time(const NetcdfReader& file, std::string_view variable) {
  const auto units = file.text(variable, "units");
  HALCYON_CHECK_KIND(units, input, "NetCDF", "{}: variable {} has no units", file.path().string(),
                     variable);
  const auto calendar = file.text(variable, "calendar").value_or("standard");
  HALCYON_CHECK_KIND(
      calendar == "standard" || calendar == "gregorian" || calendar == "proleptic_gregorian", input,
      "NetCDF", "{}: variable {}: expected the usual calendar, got {}", file.path().string(),
      variable, calendar);
  CfTimeUnits scale{};
  try {
    scale = parse_cf_units(*units, calendar != "proleptic_gregorian");
  } catch (const Error& e) {
    throw_error(ErrorKind::input, "NetCDF",
                fmt::format("{}: variable {}: {}", file.path().string(), variable, e.what()));
  }
  static const int64_t first = parse_time("0001-01-01"), last = parse_time("9999-12-31T23:59:59");
  const auto values = file.read_physical(variable, at::kDouble).contiguous();
  auto out = at::empty(values.sizes(), at::kLong);
  const double* from = values.const_data_ptr<double>();
  int64_t* to = out.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    const double seconds = std::nearbyint(from[i] * scale.seconds);
    const bool known = std::abs(seconds) < 1e12;  // false for NaN
    const int64_t time = known ? static_cast<int64_t>(seconds) + scale.reference : kMissingTime;
    to[i] = time >= first && time <= last ? time : kMissingTime;
  }
  return out;
}

}  // namespace halcyon
