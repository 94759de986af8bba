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
  double seconds;     // per unit
  int64_t reference;  // seconds since 1970
};

// Units: days, hours, minutes, seconds, milliseconds, microseconds, nanoseconds and their usual
// abbreviations. The date may leave out leading zeros and may have a fraction of a second that is
// zero; zones "Z", "UTC" and "+HH:MM". julian: a date before 1582-10-15 is one of the Julian
// calendar, as in the calendar "standard". Throws Error(argument).
CfTimeUnits parse_cf_units(std::string_view units, bool julian = false);

// A time variable as int64 seconds since 1970, rounded to the nearest; kMissingTime where it is
// missing or beyond the years 0001 to 9999. Throws Error(input) where units are absent or wrong or
// the calendar is not the usual one.
at::Tensor read_cf_time(const NetcdfReader& file, std::string_view variable);

}  // namespace halcyon
