// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace halcyon {

// t.index_select(0, order) for t of rank 1 or 2 and order int32 (rows,) a permutation, as
// sort_and_pack makes it. Differentiable.
at::Tensor gather_rows(const at::Tensor& t, const at::Tensor& order);

}  // namespace halcyon
