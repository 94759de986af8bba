// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "halcyon/sphere/regrid.h"

namespace halcyon::state {

struct Variable {
  std::string name;
  std::string standard_name = {};  // of the CF table; empty where there is none
  std::string long_name = {};
  std::string units = {};
  bool operator==(const Variable&) const = default;
};

using halcyon::Grid;  // LatLonGrid (points row-major) or Region (pixels in its order)

// Gridded fields at some times. A static field (orography) has no times and T = 1.
struct Fields {
  std::vector<Variable> variables;  // V
  Grid grid;                        // X = size_of(grid) points
  std::vector<int64_t> times;       // T, seconds since 1970 UTC, strictly ascending
  at::Tensor data;                  // (T, V, X) float32 on the CPU; NaN is missing

  bool is_static() const { return times.empty(); }
};

// Throws Error(argument) where sizes, dtype, device or the order of times do not fit together.
void check(const Fields& fields, std::string_view operation);

// Where the variable stands; Error(input) with the names that are there.
int64_t variable_index(const Fields& fields, std::string_view name);

// Where each time stands; Error(input) with the nearest times that are there.
std::vector<int64_t> time_indices(const std::vector<int64_t>& have,
                                  const std::vector<int64_t>& wanted, std::string_view operation,
                                  std::string_view file = {});

// Copies of parts, in the order asked for (times must ascend).
Fields select_times(const Fields& fields, const std::vector<int64_t>& times);
Fields select_variables(const Fields& fields, const std::vector<std::string>& names);

}  // namespace halcyon::state
