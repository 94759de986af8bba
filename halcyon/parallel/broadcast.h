// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// Each tensor takes, in place, the values that it has on the rank that owners names for it. The
// ranks have agreed on shapes, dtypes and owners before (agreement.h). Any dtype and strides.
void take_from_owners(const std::vector<at::Tensor>& tensors, const std::vector<int64_t>& owners,
                      const Group& group, const std::string& operation, int64_t tag);

}  // namespace halcyon::parallel
