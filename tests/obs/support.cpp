// SPDX-License-Identifier: Apache-2.0
#include "tests/obs/support.h"

#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/rows.h"

namespace halcyon::test {

obs::Table table_of(const std::vector<Datum>& data) {
  obs::Rows rows;
  std::vector<std::string> stations;
  for (const auto& d : data) {
    rows.add({obs::to_ns(parse_time(d.time)), d.lat, d.lon, d.value,
              obs::variable_number(d.variable), obs::platform_number("land_station"), NAN,
              static_cast<obs::ProviderFlag>(d.flag), static_cast<int32_t>(stations.size())});
    stations.push_back(d.station);
  }
  auto table = rows.table(stations);
  table.set_text("station", stations);
  return table;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

bool says(const std::string& message, std::string_view part) {
  return message.find(part) != std::string::npos;
}

}  // namespace halcyon::test
