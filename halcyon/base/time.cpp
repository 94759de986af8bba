// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/time.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "halcyon/base/error.h"
#include "halcyon/base/integers.h"

namespace halcyon {
namespace {

constexpr int64_t kDay = 86400;

bool is_leap(int64_t year) {
  return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

int days_in_month(int64_t year, int month) {
  constexpr int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return days[month - 1] + (month == 2 && is_leap(year) ? 1 : 0);
}

// Reads a text from left to right; every failure ends in the same Error.
class TimeParser {
 public:
  explicit TimeParser(std::string_view text) : text_(text) {}

  int64_t parse() {
    if (std::all_of(text_.begin(), text_.end(), [](char c) { return is_digit(c); })) {
      return compact();
    }
    const int64_t days = date('-');
    int64_t seconds = 0;
    if (!at_end()) {
      require(accept('T') || accept('t') || accept(' '));
      seconds = clock() - zone();
    }
    require(at_end());
    return days * kDay + seconds;
  }

 private:
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  bool at_end() const { return place_ == text_.size(); }
  bool accept(char c) {
    if (at_end() || text_[place_] != c) return false;
    ++place_;
    return true;
  }
  void require(bool holds) const {
    HALCYON_CHECK(holds, "time", "expected a time as 2024-02-29T06:00:00Z, got '{}'", text_);
  }
  int number(int digits, int low, int high) {
    int value = 0;
    for (int i = 0; i < digits; ++i) {
      require(!at_end() && is_digit(text_[place_]));
      value = value * 10 + (text_[place_++] - '0');
    }
    require(value >= low && value <= high);
    return value;
  }
  int64_t date(char separator) {
    const int year = number(4, 1, 9999);
    if (separator != 0) require(accept(separator));
    const int month = number(2, 1, 12);
    if (separator != 0) require(accept(separator));
    const int day = number(2, 1, days_in_month(year, month));
    return days_from_civil({year, month, day});
  }
  int64_t clock() {
    int64_t seconds = number(2, 0, 23) * 3600;
    if (accept(':')) {
      seconds += number(2, 0, 59) * 60;
      if (accept(':')) seconds += number(2, 0, 59);
      if (accept('.')) {
        do number(1, 0, 0);
        while (!at_end() && is_digit(text_[place_]));
      }
    }
    return seconds;
  }
  int64_t zone() {
    if (at_end() || accept('Z') || accept('z')) return 0;
    const bool east = accept('+');
    require(east || accept('-'));
    int64_t offset = number(2, 0, 23) * 3600;
    if (!at_end()) {
      accept(':');
      offset += number(2, 0, 59) * 60;
    }
    return east ? offset : -offset;
  }
  int64_t compact() {
    require(text_.size() >= 8 && text_.size() <= 14 && text_.size() % 2 == 0);
    int64_t seconds = date(0) * kDay;
    constexpr std::pair<int, int> parts[] = {{23, 3600}, {59, 60}, {59, 1}};
    for (const auto& [high, unit] : parts) {
      if (!at_end()) seconds += int64_t{number(2, 0, high)} * unit;
    }
    return seconds;
  }

  std::string_view text_;
  std::size_t place_ = 0;
};

// Seconds in a unit's name, 0 for none; in ISO form M is a month before the T, a minute after.
int64_t unit_seconds(std::string_view unit) {
  constexpr std::pair<std::string_view, int64_t> units[] = {
      {"w", 7 * kDay}, {"d", kDay}, {"h", 3600}, {"m", 60}, {"min", 60}, {"s", 1}};
  for (const auto& [name, seconds] : units) {
    if (unit == name) return seconds;
  }
  return 0;
}

}  // namespace

// Days are counted from 0000-03-01, so that the leap day ends its year; 400 years hold 146097 days.
int64_t days_from_civil(const CivilDate& date) {
  const int64_t year = date.year - (date.month <= 2 ? 1 : 0);
  const int64_t era = floor_div(year, 400);
  const int64_t year_of_era = year - era * 400;
  const int64_t month = (date.month + 9) % 12;
  const int64_t day_of_march_year = (153 * month + 2) / 5 + date.day - 1;
  const int64_t day_of_era =
      year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_march_year;
  return era * 146097 + day_of_era - 719468;
}

CivilDate civil_from_days(int64_t days) {
  days += 719468;
  const int64_t era = floor_div(days, 146097);
  const int64_t day_of_era = days - era * 146097;
  const int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const int64_t day = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t month = (5 * day + 2) / 153;
  const int civil_month = static_cast<int>(month < 10 ? month + 3 : month - 9);
  return {year_of_era + era * 400 + (civil_month <= 2 ? 1 : 0), civil_month,
          static_cast<int>(day - (153 * month + 2) / 5 + 1)};
}

int64_t parse_time(std::string_view text) {
  return TimeParser(text).parse();
}

std::string format_time(int64_t time) {
  const int64_t days = floor_div(time, kDay);
  const CivilDate date = civil_from_days(days);
  const int64_t second = time - days * kDay;
  return fmt::format("{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}Z", date.year, date.month, date.day,
                     second / 3600, second / 60 % 60, second % 60);
}

int64_t parse_duration(std::string_view text) {
  const auto require = [&](bool holds) {
    HALCYON_CHECK(holds, "duration", "expected a duration as PT6H, 6h, 1d or 30min, got '{}'",
                  text);
  };
  std::string rest;
  for (const char c : text) rest += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const bool negative = rest.starts_with('-');
  std::string_view s(rest);
  s.remove_prefix(negative ? 1 : 0);
  const bool iso = s.starts_with('p');
  bool after_t = !iso;
  if (iso) s.remove_prefix(1);
  int64_t total = 0;
  int parts = 0;
  while (!s.empty()) {
    if (iso && !after_t && s.starts_with('t')) {
      after_t = true;
      s.remove_prefix(1);
      require(!s.empty());
    }
    std::size_t digits = 0;
    int64_t value = 0;
    while (digits < s.size() && s[digits] >= '0' && s[digits] <= '9') {
      value = value * 10 + (s[digits++] - '0');
      require(digits <= 12);
    }
    std::size_t letters = digits;
    while (letters < s.size() && s[letters] >= 'a' && s[letters] <= 'z' &&
           !(iso && letters > digits)) {
      ++letters;
    }
    const std::string_view unit = s.substr(digits, letters - digits);
    require(digits > 0 && unit_seconds(unit) != 0);
    require(!iso || after_t == (unit == "h" || unit == "m" || unit == "s"));
    total += value * unit_seconds(unit);
    require(++parts <= 5);
    s.remove_prefix(letters);
  }
  require(parts > 0);
  return negative ? -total : total;
}

std::string format_duration(int64_t seconds) {
  const uint64_t n = seconds < 0 ? -static_cast<uint64_t>(seconds) : static_cast<uint64_t>(seconds);
  std::string text = seconds < 0 ? "-P" : "P";
  if (n >= kDay) text += fmt::format("{}D", n / kDay);
  const uint64_t rest = n % kDay;
  if (rest == 0) return n == 0 ? "PT0S" : text;
  text += 'T';
  if (rest >= 3600) text += fmt::format("{}H", rest / 3600);
  if (rest / 60 % 60 != 0) text += fmt::format("{}M", rest / 60 % 60);
  if (rest % 60 != 0) text += fmt::format("{}S", rest % 60);
  return text;
}

double day_of_year(int64_t time) {
  const int64_t year = civil_from_days(floor_div(time, kDay)).year;
  return static_cast<double>(time - days_from_civil({year, 1, 1}) * kDay) / kDay;
}

double second_of_day(int64_t time) {
  return static_cast<double>(time - floor_div(time, kDay) * kDay);
}

std::vector<int64_t> TimeRange::times() const {
  std::vector<int64_t> all;
  all.reserve(static_cast<std::size_t>(size()));
  for (int64_t i = 0; i < size(); ++i) all.push_back((*this)[i]);
  return all;
}

TimeRange time_range(int64_t start, int64_t end, int64_t step) {
  HALCYON_CHECK(step > 0, "time_range", "expected a step above zero, got {}",
                format_duration(step));
  HALCYON_CHECK(end >= start, "time_range", "expected an end at or after {}, got {}",
                format_time(start), format_time(end));
  return {start, end, step};
}

}  // namespace halcyon
