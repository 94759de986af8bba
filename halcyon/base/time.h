// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// Time is int64 seconds since 1970-01-01T00:00:00 UTC in the proleptic Gregorian calendar, without
// leap seconds; years 0001 to 9999.
namespace halcyon {

struct CivilDate {
  int64_t year;
  int month, day;  // 1-based
  bool operator==(const CivilDate&) const = default;
};

// Days since 1970-01-01. The date must exist.
int64_t days_from_civil(const CivilDate& date);
CivilDate civil_from_days(int64_t days);

// ISO 8601: "2024-02-29", "2024-02-29T06", "...T06:00", "...T06:00:00", a blank for the T, a zone
// "Z" or "+02:00" (none is UTC); also the digits of forecasters' file names: YYYYMMDD, YYYYMMDDHH,
// YYYYMMDDHHMM, YYYYMMDDHHMMSS. Fractions of a second are refused. Throws Error(argument).
int64_t parse_time(std::string_view text);
// "2024-02-29T06:00:00Z"
std::string format_time(int64_t time);

// Seconds in "PT6H", "P1D", "P1DT12H30M", "6h", "1d", "3h30min", "90s"; no months or years, whose
// lengths vary. Throws Error(argument).
int64_t parse_duration(std::string_view text);
// "PT6H", "P1DT30M", "PT0S"; a negative one begins with "-".
std::string format_duration(int64_t seconds);

// The model's calendar inputs: days since 1 January 00 UTC with their fraction (0 to 365.99...),
// and seconds since 00 UTC.
double day_of_year(int64_t time);
double second_of_day(int64_t time);

// start, start + step, ... up to and including end where the steps meet it.
struct TimeRange {
  int64_t start, end, step;
  int64_t size() const { return (end - start) / step + 1; }
  int64_t operator[](int64_t i) const { return start + i * step; }
  std::vector<int64_t> times() const;
};
// Checks step > 0 and end >= start. Throws Error(argument).
TimeRange time_range(int64_t start, int64_t end, int64_t step);

}  // namespace halcyon
