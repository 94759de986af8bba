// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "halcyon/parallel/group.h"
#include "halcyon/parallel/window.h"

namespace halcyon::parallel {

// torch's max or avg pooling of a tensor whose rows (axis dim, a spatial one) are cut over the
// ranks of a group, bit for bit. x (batch, channels, 1 to 3 spatial axes), where kernel_size has
// one number an axis also without the batch. stride: the kernel's size where none is given. Output
// rows are cut as the input's where their number is the same, else by split_sizes. Collective,
// differentiable any number of times. dilation is for mode "max", count_include_pad for "avg".
// Error(argument) on every rank where the arguments differ or torch would refuse the whole tensor.
at::Tensor pool(const at::Tensor& x, const PerAxis& kernel_size,
                const std::optional<PerAxis>& stride = {}, const PerAxis& padding = 0,
                const PerAxis& dilation = 1, const std::string& mode = "max",
                bool ceil_mode = false, bool count_include_pad = true, int64_t dim = -2,
                const Group& group = {});

}  // namespace halcyon::parallel
