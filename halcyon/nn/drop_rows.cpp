// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/drop_rows.h"

#include <ATen/Functions.h>

namespace halcyon {

at::Tensor drop_rows(const at::Tensor& x, double rate, bool rescale) {
  auto kept = at::empty_symint({x.sym_size(0), 1}, x.options()).bernoulli_(1 - rate);
  if (rescale && rate < 1) kept.div_(1 - rate);
  return x * kept;
}

}  // namespace halcyon
