// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

namespace halcyon::obs {

struct Conversion {
  double scale, offset;
  double operator()(double value) const { return value * scale + offset; }
};

// From units as files write them (in any case) to those of a table: "K", "Pa", "m s-1", "m",
// "degree" or "%". Nothing for units that are unknown or of something else.
std::optional<Conversion> conversion(std::string_view from, std::string_view to);

}  // namespace halcyon::obs
