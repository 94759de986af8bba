// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <string>
#include <vector>

// Arguments and arithmetic that the operators with windows (convolutions, pooling) share.
namespace halcyon::parallel {

// One number for all spatial axes, or one for each.
struct PerAxis {
  PerAxis(int64_t value) : values{value} {}                                // NOLINT
  PerAxis(std::initializer_list<int64_t> per_axis) : values(per_axis) {}   // NOLINT
  PerAxis(std::vector<int64_t> per_axis) : values(std::move(per_axis)) {}  // NOLINT
  std::vector<int64_t> values;

  // As n numbers of at least `lowest`; Error(argument) otherwise.
  std::vector<int64_t> expand(int64_t n, const char* name, int64_t lowest,
                              const std::string& operation) const;
};

// x (batch, channels, n spatial axes), or without the batch; dim its sharded axis, which must be a
// spatial one. Returns that axis, counted from 0 in x.
int64_t spatial_axis_of(const at::Tensor& x, int64_t dim, int64_t n, const std::string& operation);

// Rows under a window of so many taps.
inline int64_t extent_of(int64_t kernel, int64_t dilation) {
  return dilation * (kernel - 1) + 1;
}

// x with zero rows after its last, so that it has at least `rows`: what a rank without output rows
// computes with, so that its empty result hangs on all inputs as those of the others do.
at::Tensor with_at_least(const at::Tensor& x, int64_t dim, int64_t rows);

// Under autocast x in its type, as an operator of its lower-precision list takes it; a double
// stays.
at::Tensor as_autocast(const at::Tensor& x);

}  // namespace halcyon::parallel
