// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <string_view>

#include "halcyon/base/netcdf.h"

// Times of NetCDF files as the CF conventions write them: "hours since 2012-10-01 12:00:00".
namespace halcyon {

// What a time that is missing becomes.
inline constexpr int64_t kMissingTime = std::numeric_limits<int64_t>::min();

struct CfTimeUnits {
  double seconds;        // per unit
  int64_t reference;     // whole seconds since 1970
  int64_t microseconds;  // of the reference's fraction of a second
};

// Whether units say "<unit> since ...", in any case.
bool is_cf_time(std::string_view units);

// Units: days, hours, minutes, seconds, milliseconds, microseconds, nanoseconds and their usual
// abbreviations, in any case. The date is year-month-day (leading zeros may be left out) or
// YYYYMMDD, then a time of hours, minutes, seconds and fraction, each of which may be left out,
// then a zone: nothing, "Z", "UTC", "GMT", "+HH:MM", "-HHMM", "+HH". julian: a date before
// 1582-10-15 is one of the Julian calendar, as in the calendar "standard". Throws Error(argument)
// that names the part which it does not understand.
CfTimeUnits parse_cf_units(std::string_view units, bool julian = false);

// A time variable as int64 seconds since 1970, rounded to the nearest; kMissingTime where it is
// missing or beyond the years 0001 to 9999. Throws Error(input) where units are absent or wrong or
// the calendar (in any case) is another than standard, gregorian and proleptic_gregorian.
at::Tensor read_cf_time(const NetcdfReader& file, std::string_view variable);

}  // namespace halcyon
