// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "halcyon/obs/table.h"

namespace halcyon::test {

// One observation for a hand-made table; value in the units of the variable.
struct Datum {
  std::string time;
  std::string station;
  float value;
  double lat = 40, lon = -100;
  std::string variable = "t2m";
  int32_t flag = 1;
};
obs::Table table_of(const std::vector<Datum>& data);

// The message of the Error that f throws; "no error" when it throws none.
std::string message_of(const std::function<void()>& f);
bool says(const std::string& message, std::string_view part);

}  // namespace halcyon::test
