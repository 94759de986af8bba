// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

// Time coordinates as the CF conventions write them (CF-1.8, section 4.4).
namespace halcyon::state {

// Seconds since 1970 UTC, to the nearest second, of numbers in "hours since 1800-01-01 00:00:0.0":
// seconds, minutes, hours, days or weeks since a date with an optional time and zone. Calendars
// standard (also gregorian, and an empty name) and proleptic_gregorian; in the standard calendar a
// reference date before 1582-10-15 is Julian. Others (noleap, 360_day ...) and values that are no
// number are Error(input).
std::vector<int64_t> decode_times(const at::Tensor& values, std::string_view units,
                                  std::string_view calendar, std::string_view file);

}  // namespace halcyon::state
