// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/describe.h"

#include <fmt/ranges.h>

namespace halcyon {

std::string describe(const at::Tensor& t) {
  if (!t.defined()) return "no tensor";
  return fmt::format("({}) {} on {}", fmt::join(t.sizes(), ", "), c10::toString(t.scalar_type()),
                     t.device().str());
}

}  // namespace halcyon
