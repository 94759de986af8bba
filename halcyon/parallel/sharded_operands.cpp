// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/sharded_operands.h"

#include <ATen/ATen.h>

namespace halcyon::parallel {

at::Tensor stand_in(const at::Tensor& part, int64_t dim, int64_t global_length) {
  auto sizes = part.sizes().vec();
  sizes[static_cast<size_t>(dim)] = global_length;
  return at::empty({}, part.options()).expand(sizes);
}

at::Tensor empty_result(at::IntArrayRef sizes, const std::vector<at::Tensor>& operands,
                        c10::ScalarType type) {
  auto nothing = at::zeros({}, operands.front().options().dtype(type));
  for (const auto& operand : operands) {
    nothing = nothing + operand.flatten().narrow(0, 0, 0).sum().to(type);
  }
  return nothing.expand(sizes);
}

at::Tensor with_zeros(const at::Tensor& x, int64_t dim, int64_t before, int64_t after) {
  if (before == 0 && after == 0) return x;
  std::vector<int64_t> pad(static_cast<size_t>(2 * (x.dim() - dim)), 0);
  pad[pad.size() - 2] = before;
  pad[pad.size() - 1] = after;
  return at::constant_pad_nd(x, pad);
}

}  // namespace halcyon::parallel
