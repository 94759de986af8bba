// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "halcyon/ops/neighborhood/backends.h"
#include "halcyon/ops/neighborhood/neighborhood.h"

// What the operators of neighborhood attention check before any work.
namespace halcyon::neighborhood {

// The sizes; of a traced tensor those that it is traced for.
std::vector<int64_t> sizes_of(const at::Tensor& t);

// Kernel, dilation, stride and flags of each axis, as far as they can be checked without its
// length.
std::vector<Axis> checked_windows(const char* operation, std::size_t rank,
                                  const NeighborhoodOptions& options);

// The same against the lengths of the axes.
std::vector<Axis> checked_axes(const char* operation, const std::vector<int64_t>& lengths,
                               const NeighborhoodOptions& options);

// Operands and options of na1d to na3d.
Inputs checked_inputs(const char* operation, std::size_t rank, const at::Tensor& query,
                      const at::Tensor& key, const at::Tensor& value,
                      const NeighborhoodOptions& options);

// na1d to na3d by the number of axes; operation is what messages call it.
AttentionOutput attend(const char* operation, std::size_t rank, const at::Tensor& query,
                       const at::Tensor& key, const at::Tensor& value,
                       const NeighborhoodOptions& options);

// Throws Error(unsupported) for a nested or sparse tensor.
void check_dense(const char* operation, const char* name, const at::Tensor& t);

}  // namespace halcyon::neighborhood
