// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"

// What the operators check at their public edge.
namespace halcyon {

// Ids and offsets: int32 or int64.
inline bool is_index(const at::Tensor& t) {
  return t.scalar_type() == at::kInt || t.scalar_type() == at::kLong;
}

// Throws Error(argument) unless t is defined, of a floating type (half, bfloat16, float, double)
// and of this rank.
void check_floating(const at::Tensor& t, int64_t rank, const char* operation, const char* name);

// Throws Error(argument) unless t is defined, int32 or int64, and of rank 1 with this many entries.
// A negative length takes any.
void check_index(const at::Tensor& t, int64_t length, const char* operation, const char* name);

// Throws Error(argument) unless t is on the device of reference.
void check_device(const at::Tensor& t, const at::Tensor& reference, const char* operation,
                  const char* name);

// Throws Error(argument) in a backward that is itself to be differentiated (create_graph), which
// would otherwise take these gradients for constants.
void check_first_derivative(const char* operation);

}  // namespace halcyon
