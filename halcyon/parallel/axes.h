// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "halcyon/base/error.h"

namespace halcyon::parallel {

// An axis counted from the front; Error(argument) that names the argument where x has none such.
inline int64_t axis_of(const at::Tensor& x, int64_t dim, const char* name,
                       const std::string& operation) {
  HALCYON_CHECK(x.defined(), operation, "expected a tensor x, got an undefined one");
  HALCYON_CHECK(-x.dim() <= dim && dim < x.dim(), operation,
                "expected {} as an axis of x with {} axes, got {}", name, x.dim(), dim);
  return dim < 0 ? dim + x.dim() : dim;
}

// x's, with another length of the axis.
inline std::vector<int64_t> sizes_with(const at::Tensor& x, int64_t dim, int64_t length) {
  auto sizes = x.sizes().vec();
  sizes[dim] = length;
  return sizes;
}

}  // namespace halcyon::parallel
