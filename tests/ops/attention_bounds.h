// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/ScalarType.h>

namespace halcyon::test {

// Errors allowed to a fused attention against its reference in double, relative to the largest
// magnitude.
struct Bound {
  at::ScalarType type;
  double forward, backward;
};
inline constexpr Bound kBounds[] = {{at::kDouble, 1e-12, 1e-11},
                                    {at::kFloat, 2e-5, 5e-5},
                                    {at::kBFloat16, 2e-2, 4e-2},
                                    {at::kHalf, 3e-3, 1e-2}};

}  // namespace halcyon::test
