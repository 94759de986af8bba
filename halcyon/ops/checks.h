// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"

// What the operators check at their public edge. Sizes are compared as symbols, so that graphs of
// any number of rows can be traced.
namespace halcyon {

// Ids and offsets: int32 or int64.
inline bool is_index(const at::Tensor& t) {
  return t.scalar_type() == at::kInt || t.scalar_type() == at::kLong;
}

// Throws Error(argument) unless t is defined, of a floating type (half, bfloat16, float, double)
// and of this rank.
void check_floating(const at::Tensor& t, int64_t rank, const char* operation, const char* name);

// Throws Error(argument) unless t is defined, int32 or int64, and of rank 1, with this many entries
// where a length is given.
void check_index(const at::Tensor& t, const std::optional<c10::SymInt>& length,
                 const char* operation, const char* name);

// Throws Error(argument) unless t has these sizes.
void check_shape(const at::Tensor& t, c10::SymIntArrayRef sizes, const char* operation,
                 const char* name);

// Throws Error(argument) unless t is on the device of reference.
void check_device(const at::Tensor& t, const at::Tensor& reference, const char* operation,
                  const char* name);

// Throws Error(argument) in a backward that is itself to be differentiated (create_graph), which
// would otherwise take these gradients for constants.
void check_first_derivative(const char* operation);

}  // namespace halcyon
