// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/describe.h"

#include <fmt/ranges.h>

#include <sstream>

namespace halcyon {

std::string describe(const at::Tensor& t) {
  if (!t.defined()) return "no tensor";
  std::vector<std::string> sizes;
  for (const auto& size : t.sym_sizes()) {  // in a graph they may be symbols
    std::ostringstream text;
    text << size;
    sizes.push_back(text.str());
  }
  return fmt::format("({}) {} on {}", fmt::join(sizes, ", "), c10::toString(t.scalar_type()),
                     t.device().str());
}

}  // namespace halcyon
