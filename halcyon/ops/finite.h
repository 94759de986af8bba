// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace halcyon {

// Whether t's numbers can be looked at: it is on a CPU and no stand-in that a tracer made.
bool is_readable(const at::Tensor& t);

// Whether every number of t, which is readable and floating, is finite: one pass over its memory.
bool all_finite(const at::Tensor& t);

}  // namespace halcyon
