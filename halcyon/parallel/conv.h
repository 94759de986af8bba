// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <variant>

#include "halcyon/parallel/group.h"
#include "halcyon/parallel/window.h"

// Convolutions of a tensor whose rows (axis dim, a spatial one) are cut over the ranks of a group.
// The result is this rank's rows of what one process computes on the whole tensor, of any kernel,
// stride, dilation and padding: everything follows from global row indices. Output rows are cut as
// the input's where their number is the same, else by split_sizes. Collective and differentiable
// any number of times; weight and bias are whole, the same on every rank, and their gradients this
// rank's contribution. 1-D to 3-D by the weight; x (batch, channels, ...) or without the batch.
// Error(argument) on every rank where the arguments differ or the kernel does not fit.
namespace halcyon::parallel {

// Rows on both sides, one number or one a spatial axis; or "same" (stride 1; the odd one behind, as
// torch), or "valid".
using Padding = std::variant<PerAxis, std::string>;

// weight (out, in / groups, kernel...). padding_mode: "zeros", "circular", "reflect", on all axes;
// edge (row_plan.h) instead of it on the sharded one; "fold" takes the last axis as the longitudes.
at::Tensor conv(const at::Tensor& x, const at::Tensor& weight,
                const std::optional<at::Tensor>& bias = {}, const PerAxis& stride = 1,
                const Padding& padding = PerAxis(0), const PerAxis& dilation = 1,
                int64_t groups = 1, const std::string& padding_mode = "zeros", int64_t dim = -2,
                const Group& group = {}, const std::optional<std::string>& edge = {});

// weight (in, out / groups, kernel...).
at::Tensor conv_transpose(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias = {}, const PerAxis& stride = 1,
                          const PerAxis& padding = 0, const PerAxis& output_padding = 0,
                          int64_t groups = 1, const PerAxis& dilation = 1, int64_t dim = -2,
                          const Group& group = {});

}  // namespace halcyon::parallel
