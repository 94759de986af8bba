// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// torch.nn.functional.interpolate of a tensor (batch, channels, 1 to 3 spatial axes) whose rows
// (axis dim, a spatial one) are cut over the ranks of a group: source rows and weights are those of
// the global rows, in ATen's own arithmetic. size, of the global output, or scale_factor, one
// number or one a spatial axis; scale_factor is also what the source rows are computed with, as in
// torch. mode: "nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic";
// align_corners not for the first two. Half types are computed in float. Output rows are cut as the
// input's where their number is the same, else by split_sizes. Collective, differentiable any
// number of times. Error(argument) on every rank where the arguments differ or torch would refuse
// them.
at::Tensor interpolate(const at::Tensor& x, const std::optional<std::vector<int64_t>>& size,
                       const std::optional<std::vector<double>>& scale_factor = {},
                       const std::string& mode = "nearest", std::optional<bool> align_corners = {},
                       int64_t dim = -2, const Group& group = {});

}  // namespace halcyon::parallel
