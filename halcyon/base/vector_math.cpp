// SPDX-License-Identifier: Apache-2.0
// MKL chooses the kernel of each function of its vector mathematics at the function's first call.
// When ATen makes that call from several threads at once, one of them may run a kernel of half the
// accuracy (pytorch/pytorch#188792: errors of 1e-4 in exp, once, in the first large tensor of a
// process). One call of each from one thread, before any other.
#include <ATen/ATen.h>

namespace halcyon {
namespace {

[[maybe_unused]] const bool chosen = [] {
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto x = at::full({16}, 0.5, type);
    for (auto* function :
         {at::acos, at::asin, at::atan, at::cos, at::erf, at::erfc, at::erfinv, at::exp, at::log,
          at::log10, at::log2, at::sin, at::sqrt, at::tan, at::tanh, at::trunc}) {
      function(x);
    }
  }
  return true;
}();

}  // namespace
}  // namespace halcyon
