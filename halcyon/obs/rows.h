// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "halcyon/obs/table.h"
#include "halcyon/obs/variables.h"

namespace halcyon::obs {

// Collects rows one by one, for readers.
class Rows {
 public:
  struct Row {
    int64_t time_ns;
    double lat, lon;
    float value;
    int32_t variable, platform;
    float height;
    ProviderFlag flag;
    int32_t station;  // number in the list given to table()
  };
  void add(const Row& row);
  // The columns of every reader.
  Table table(std::vector<std::string> stations) const;

 private:
  std::vector<int64_t> time_;
  std::vector<double> lat_, lon_;
  std::vector<float> value_, height_;
  std::vector<int32_t> variable_, platform_, flag_, station_;
};

// ns since 1970 of seconds; kMissingTimeNs for kMissingTime and beyond the years 1678 to 2261.
int64_t to_ns(int64_t seconds);

}  // namespace halcyon::obs
