// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace halcyon {

// Quotient rounded towards minus infinity; b > 0.
constexpr int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b < 0 ? 1 : 0);
}

}  // namespace halcyon
