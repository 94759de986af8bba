// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/cf_time.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <string>
#include <tuple>

#include "halcyon/base/error.h"
#include "halcyon/base/integers.h"
#include "halcyon/base/time.h"

namespace halcyon {
namespace {

struct Unit {
  std::string_view name;
  double seconds;
};

constexpr std::array<Unit, 36> kUnits = {{
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
    {"millisecs", 1e-3},
    {"millisec", 1e-3},
    {"msecs", 1e-3},
    {"msec", 1e-3},
    {"ms", 1e-3},
    {"microseconds", 1e-6},
    {"microsecond", 1e-6},
    {"microsecs", 1e-6},
    {"microsec", 1e-6},
    {"usecs", 1e-6},
    {"usec", 1e-6},
    {"us", 1e-6},
    {"nanoseconds", 1e-9},
    {"nanosecond", 1e-9},
    {"nsecs", 1e-9},
    {"nsec", 1e-9},
    {"ns", 1e-9},
}};

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

bool is_blank(char c) {
  return std::isspace(static_cast<unsigned char>(c)) != 0;
}

// The next word, taken off text.
std::string_view take_word(std::string_view& text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  std::size_t size = 0;
  while (size < text.size() && !is_blank(text[size])) ++size;
  const auto word = text.substr(0, size);
  text.remove_prefix(size);
  return word;
}

double seconds_of(std::string_view unit) {
  const auto name = lower(unit);
  for (const auto& known : kUnits) {
    if (known.name == name) return known.seconds;
  }
  const bool varies =
      name.starts_with("month") || name.starts_with("year") || name.starts_with("common_year");
  throw_error(ErrorKind::argument, "time units",
              fmt::format("expected days to nanoseconds, got \"{}\"{}", unit,
                          varies ? ", which have no fixed length" : ""));
}

// Days from 1970-01-01 of our calendar to a date of the Julian one.
int64_t days_from_julian(const CivilDate& date) {
  const int64_t year = date.year - (date.month <= 2 ? 1 : 0);  // of March to February
  const int64_t four = floor_div(year, 4);
  const int64_t month = (date.month + 9) % 12;
  const int64_t day_of_year = (153 * month + 2) / 5 + date.day - 1;
  return four * 1461 + (year - four * 4) * 365 + day_of_year - 719470;
}

int days_in_month(const CivilDate& date, bool julian) {
  constexpr int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = date.year % 4 == 0 && (julian || date.year % 100 != 0 || date.year % 400 == 0);
  return days[date.month - 1] + (date.month == 2 && leap ? 1 : 0);
}

// The date of "hours since DATE", which is freer than ISO 8601: digits may be few, and there are
// many ways to write the zone.
class ReferenceDate {
 public:
  ReferenceDate(std::string_view text, bool mixed) : all_(text), rest_(text), mixed_(mixed) {}

  CfTimeUnits parse() {
    skip_blanks();
    CfTimeUnits out{1, 86400 * days(), 0};
    if (accept('T') || accept('t') || accept('_')) {
      require(digit(), "a time");
    } else {
      skip_blanks();
    }
    if (digit()) clock(out);
    skip_blanks();
    out.reference -= zone();
    skip_blanks();
    require(rest_.empty(), "nothing more");
    return out;
  }

 private:
  void require(bool holds, std::string_view what) const {
    HALCYON_CHECK(holds, "time units", "expected {}, got \"{}\" in \"{}\"", what, rest_, all_);
  }
  bool digit() const { return !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9'; }
  bool accept(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void skip_blanks() {
    while (!rest_.empty() && is_blank(rest_.front())) rest_.remove_prefix(1);
  }
  std::size_t digits() const {
    std::size_t count = 0;
    while (count < rest_.size() && rest_[count] >= '0' && rest_[count] <= '9') ++count;
    return count;
  }
  int number(std::size_t most_digits, int low, int high, const std::string& what) {
    const auto count = std::min(digits(), most_digits);
    int value = 0;
    for (std::size_t i = 0; i < count; ++i) value = value * 10 + (rest_[i] - '0');
    require(count > 0 && value >= low && value <= high, what);
    rest_.remove_prefix(count);
    return value;
  }

  // Days since 1970-01-01.
  int64_t days() {
    require(rest_.empty() || rest_.front() != '-', "a year from 1 to 9999");
    accept('+');
    CivilDate date{};
    const bool compact = digits() == 8;
    require(compact || digits() <= 4, "a year from 1 to 9999");
    date.year = number(4, mixed_ ? 1 : 0, 9999, "a year from 1 to 9999");
    require(compact || accept('-'), "year-month-day");
    date.month = number(2, 1, 12, "a month from 1 to 12");
    require(compact || accept('-'), "year-month-day");
    const bool early = std::tie(date.year, date.month) <= std::tuple(1582, 10);
    // the day decides in the month of the reform
    const bool month_of_reform = date.year == 1582 && date.month == 10;
    const int most = days_in_month(date, mixed_ && early);
    date.day = number(2, 1, most, fmt::format("a day from 1 to {}", most));
    require(!digit(), "year-month-day");
    if (!mixed_ || !early || (month_of_reform && date.day >= 15)) return days_from_civil(date);
    require(!month_of_reform || date.day <= 4,
            "a date that is in the calendar standard (1582-10-15 follows 1582-10-04)");
    return days_from_julian(date);
  }

  void clock(CfTimeUnits& out) {
    const bool compact = digits() == 4 || digits() == 6;
    require(compact || digits() <= 2, "hours:minutes:seconds");
    out.reference += 3600 * number(2, 0, 23, "an hour from 0 to 23");
    if (!(compact ? digit() : accept(':'))) return;
    out.reference += 60 * number(2, 0, 59, "a minute from 0 to 59");
    if (!(compact ? digit() : accept(':'))) return;
    out.reference += number(2, 0, 59, "a second from 0 to 59");
    require(!digit(), "hours:minutes:seconds");
    if (!accept('.')) return;
    int64_t unit = 100'000;
    for (; digit(); unit /= 10) {
      out.microseconds += unit * (rest_.front() - '0');
      rest_.remove_prefix(1);
    }
  }

  // Seconds east of UTC.
  int64_t zone() {
    if (rest_.empty() || accept('Z') || accept('z')) return 0;
    if (const auto name = lower(rest_.substr(0, 3)); name == "utc" || name == "gmt") {
      rest_.remove_prefix(3);
      return 0;
    }
    constexpr const char* form = "a zone as Z, UTC or +HH:MM";
    const bool east = accept('+'), west = !east && accept('-');
    require(digit(), form);
    const bool compact = digits() == 4;
    require(compact || digits() <= 2, form);
    int64_t offset = 3600 * number(2, 0, 23, form);
    if (compact || accept(':')) offset += 60 * number(2, 0, 59, form);
    require(east || west || offset == 0, "a zone with its sign");
    return west ? -offset : offset;
  }

  std::string_view all_, rest_;
  bool mixed_;
};

}  // namespace

bool is_cf_time(std::string_view units) {
  take_word(units);
  return lower(take_word(units)) == "since";
}

CfTimeUnits parse_cf_units(std::string_view units, bool julian) {
  HALCYON_CHECK(is_cf_time(units), "time units", "expected \"<unit> since <date>\", got \"{}\"",
                units);
  auto rest = units;
  const double seconds = seconds_of(take_word(rest));
  take_word(rest);
  auto out = ReferenceDate(rest, julian).parse();
  out.seconds = seconds;
  return out;
}

at::Tensor read_cf_time(const NetcdfReader& file, std::string_view variable) {
  const auto units = file.text(variable, "units");
  HALCYON_CHECK_KIND(units, input, "NetCDF", "{}: variable {} has no units", file.path().string(),
                     variable);
  auto calendar = lower(file.text(variable, "calendar").value_or("standard"));
  if (calendar.empty()) calendar = "standard";
  HALCYON_CHECK_KIND(
      calendar == "standard" || calendar == "gregorian" || calendar == "proleptic_gregorian", input,
      "NetCDF",
      "{}: variable {}: expected the calendar standard, gregorian or proleptic_gregorian, got {}",
      file.path().string(), variable, calendar);
  CfTimeUnits scale{1, 0, 0};
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
  const double fraction = 1e-6 * static_cast<double>(scale.microseconds);
  for (int64_t i = 0; i < values.numel(); ++i) {
    const double seconds = std::floor(from[i] * scale.seconds + fraction + 0.5);
    const bool known = std::abs(seconds) < 1e12;  // false for NaN
    const int64_t time = known ? static_cast<int64_t>(seconds) + scale.reference : kMissingTime;
    to[i] = time >= first && time <= last ? time : kMissingTime;
  }
  return out;
}

}  // namespace halcyon
