// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace halcyon::parallel {

enum class Interpolation { nearest, nearest_exact, linear, cubic };

// One axis of an interpolation.
struct Resized {
  int64_t input, output;        // rows
  std::optional<double> scale;  // that the caller named; else output over input
  Interpolation kind;
  bool align_corners;
  bool is_small;   // ATen's path for small outputs of two axes
  bool in_double;  // the arithmetic of ATen for a double tensor, else that for float
};

// The input rows that output row o takes, and their weights.
struct Taps {
  int count;
  int64_t rows[4];
  double weights[4];
};
Taps taps_of(const Resized& axis, int64_t o);

// Rows [first, last) of the axis' output, from x, which holds the input rows from `begin` on.
at::Tensor resize_axis(const at::Tensor& x, int64_t dim, const Resized& axis, int64_t first,
                       int64_t last, int64_t begin);

}  // namespace halcyon::parallel
