// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/rows.h"

#include <ATen/ATen.h>

#include <cmath>

namespace halcyon::obs {
namespace {

template <typename T>
at::Tensor tensor_of(const std::vector<T>& values) {
  auto out = at::empty({static_cast<int64_t>(values.size())}, c10::CppTypeToScalarType<T>::value);
  std::copy(values.begin(), values.end(), out.template mutable_data_ptr<T>());
  return out;
}

}  // namespace

void Rows::add(const Row& row) {
  time_.push_back(row.time_ns);
  lat_.push_back(row.lat);
  lon_.push_back(row.lon);
  value_.push_back(row.value);
  variable_.push_back(row.variable);
  platform_.push_back(row.platform);
  height_.push_back(row.height);
  flag_.push_back(static_cast<int32_t>(row.flag));
  station_.push_back(row.station);
}

Table Rows::table(std::vector<std::string> stations) const {
  auto table = make_table(tensor_of(time_), tensor_of(lat_), tensor_of(lon_), tensor_of(value_), 0);
  table.set("variable", tensor_of(variable_));
  table.set("platform", tensor_of(platform_));
  table.set("height", tensor_of(height_), "m");
  table.set("provider_flag", tensor_of(flag_));
  table.set_text("station", tensor_of(station_), std::move(stations));
  return table;
}

int64_t to_ns(int64_t seconds) {
  constexpr int64_t most = 9'200'000'000;
  return seconds > -most && seconds < most ? seconds * 1'000'000'000 : kMissingTimeNs;
}

}  // namespace halcyon::obs
