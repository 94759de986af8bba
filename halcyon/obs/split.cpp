// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/split.h"

#include <ATen/ATen.h>

#include "halcyon/base/time.h"

namespace halcyon::obs {
namespace {

constexpr int64_t kNsPerHour = 3'600'000'000'000;

at::Tensor on_days(const Table& table, int parity) {
  const auto time = table.values<int64_t>("time_ns");
  auto mask = at::empty({table.rows()}, at::kBool);
  auto* out = mask.mutable_data_ptr<bool>();
  for (const int64_t t : time)
    *out++ = t != kMissingTimeNs && day_parts(t).day_of_year % 2 == parity;
  return mask;
}

}  // namespace

DayParts day_parts(int64_t time_ns) {
  const int64_t hours = time_ns / kNsPerHour - (time_ns % kNsPerHour < 0);
  const int64_t days = hours / 24 - (hours % 24 < 0);
  const auto date = civil_from_days(days);
  return {static_cast<int>(days - days_from_civil({date.year, 1, 1})) + 1, date.month,
          static_cast<int>(hours - days * 24)};
}

at::Tensor on_even_days(const Table& table) {
  return on_days(table, 0);
}
at::Tensor on_odd_days(const Table& table) {
  return on_days(table, 1);
}

}  // namespace halcyon::obs
