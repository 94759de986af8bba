// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "halcyon/obs/table.h"

// The halves of a record: statistics come from even days, scores from odd ones. A day's number is
// that of its year, 1 January being day 1, in UTC (the protocol of the published baselines).
namespace halcyon::obs {

// 1-based day of the year, month 1..12 and hour 0..23 of a time in ns since 1970.
struct DayParts {
  int day_of_year, month, hour;
};
DayParts day_parts(int64_t time_ns);

// bool (rows,); false where the time is missing.
at::Tensor on_even_days(const Table& table);
at::Tensor on_odd_days(const Table& table);

}  // namespace halcyon::obs
