// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace halcyon {

// x (B, C) with every row set to zero with probability `rate`, and the others divided by 1 - rate
// if they are rescaled (stochastic depth, Huang et al. 2016, arXiv:1603.09382). One draw a row from
// the global generator.
at::Tensor drop_rows(const at::Tensor& x, double rate, bool rescale);

}  // namespace halcyon
