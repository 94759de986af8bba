// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/cf_time.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <regex>
#include <string>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"

namespace halcyon::state {
namespace {

struct Units {
  double seconds;    // in one unit
  double reference;  // seconds since 1970
};

double unit_length(const std::string& name, std::string_view file) {
  static const std::vector<std::pair<const char*, double>> known = {
      {"s", 1},       {"sec", 1},      {"secs", 1},      {"second", 1},    {"seconds", 1},
      {"min", 60},    {"mins", 60},    {"minute", 60},   {"minutes", 60},  {"h", 3600},
      {"hr", 3600},   {"hrs", 3600},   {"hour", 3600},   {"hours", 3600},  {"d", 86400},
      {"day", 86400}, {"days", 86400}, {"week", 604800}, {"weeks", 604800}};
  for (const auto& [unit, length] : known)
    if (name == unit) return length;
  throw_error(ErrorKind::input, "cf_time",
              fmt::format("{}: expected time in seconds, minutes, hours, days or weeks, got {}",
                          file, name));
}

// Days since 1970-01-01 of a date in the Julian calendar (the count of Julian days from year 0,
// March first, shifted to the same origin).
int64_t days_from_julian(int64_t year, int month, int day) {
  const int64_t y = month > 2 ? year : year - 1;
  const int64_t m = month > 2 ? month - 3 : month + 9;
  return 365 * y + (y >= 0 ? y / 4 : (y - 3) / 4) + (153 * m + 2) / 5 + day - 719471;
}

int days_in_month(int64_t year, int month, bool julian) {
  static constexpr int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = year % 4 == 0 && (julian || year % 100 != 0 || year % 400 == 0);
  return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

Units parse_units(std::string_view units, bool mixed_calendar, std::string_view file) {
  static const std::regex form(
      R"(^\s*([A-Za-z]+)\s+since\s+(\d{1,4})-(\d{1,2})-(\d{1,2})(?:[T\s]+(\d{1,2}):(\d{1,2})(?::(\d{1,2}(?:\.\d*)?))?)?\s*(Z|UTC|GMT|([+-])(\d{1,2}):?(\d{2})?)?\s*$)",
      std::regex::icase);
  std::cmatch part;
  // bounded, because the library's matcher recurses once a character
  const bool matches =
      units.size() < 100 && std::regex_match(units.data(), units.data() + units.size(), part, form);
  HALCYON_CHECK_KIND(
      matches, input, "cf_time",
      "{}: expected time units such as \"hours since 1900-01-01 00:00:00\", got \"{}\"", file,
      units.substr(0, 100));
  auto number = [&](std::size_t i) { return part[i].matched ? std::stod(part[i].str()) : 0.0; };
  const auto year = static_cast<int64_t>(number(2));
  const int month = static_cast<int>(number(3)), day = static_cast<int>(number(4));
  const bool julian = mixed_calendar && (year * 100 + month) * 100 + day < 15821015;
  HALCYON_CHECK_KIND(month >= 1 && month <= 12 && day >= 1 &&
                         day <= days_in_month(year, month, julian) && number(5) < 25 &&
                         number(6) < 60,
                     input, "cf_time", "{}: expected a date that exists, got \"{}\"", file, units);
  HALCYON_CHECK_KIND(julian || year >= 1, input, "cf_time",
                     "{}: expected a year from 1, got \"{}\"", file, units);
  const int64_t days =
      julian ? days_from_julian(year, month, day) : days_from_civil({year, month, day});
  double zone = (number(10) * 60 + number(11)) * 60;
  if (part[9].matched && part[9].str() == "-") zone = -zone;
  std::string unit = part[1].str();
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return {unit_length(unit, file),
          static_cast<double>(days) * 86400 + number(5) * 3600 + number(6) * 60 + number(7) - zone};
}

}  // namespace

std::vector<int64_t> decode_times(const at::Tensor& values, std::string_view units,
                                  std::string_view calendar, std::string_view file) {
  const bool mixed = calendar.empty() || calendar == "standard" || calendar == "gregorian" ||
                     calendar == "STANDARD" || calendar == "GREGORIAN";
  HALCYON_CHECK_KIND(mixed || calendar == "proleptic_gregorian", input, "cf_time",
                     "{}: expected a standard or proleptic_gregorian calendar, got {}", file,
                     calendar);
  const Units scale = parse_units(units, mixed, file);
  const at::Tensor numbers = values.to(at::kDouble).contiguous().view({-1});
  const double* value = numbers.const_data_ptr<double>();
  std::vector<int64_t> times(static_cast<std::size_t>(numbers.numel()));
  for (std::size_t i = 0; i < times.size(); ++i) {
    const double seconds = value[i] * scale.seconds + scale.reference;
    // the years 1 to 9999, which base/time.h can write
    HALCYON_CHECK_KIND(seconds >= -62135596800.0 && seconds < 253402300800.0, input, "cf_time",
                       "{}: expected a time between the years 1 and 9999, got {} {}", file,
                       value[i], units);
    times[i] = std::llround(seconds);
  }
  return times;
}

}  // namespace halcyon::state
