// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// Entries of the global axis dim by their numbers, this rank's own choice: index is int64 of any
// shape, which replaces dim; -1 gives zeros. Every entry travels once to a rank that wants it. The
// backward scatters and adds, in an order that does not depend on timing. Error(argument) on every
// rank where a number is outside -1 to n - 1.
at::Tensor gather_index(const at::Tensor& x, const at::Tensor& index, int64_t dim = 0,
                        const Group& group = {});

}  // namespace halcyon::parallel
