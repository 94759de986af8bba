// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "halcyon/parallel/agreement.h"

// What the attentions of this room share.
namespace halcyon::parallel {

// No memory, and the shape of the global tensor: for the checks that a whole operand goes through.
at::Tensor stand_in(const at::Tensor& part, int64_t dim, int64_t global_length);

// An empty result of this shape in which every operand has a part, with a gradient of zeros.
at::Tensor empty_result(at::IntArrayRef sizes, const std::vector<at::Tensor>& operands,
                        c10::ScalarType type);

// x with zeros before and after it along dim.
at::Tensor with_zeros(const at::Tensor& x, int64_t dim, int64_t before, int64_t after);

}  // namespace halcyon::parallel
