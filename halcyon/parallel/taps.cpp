// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/taps.h"

#include <ATen/ATen.h>
#include <ATen/native/UpSample.h>

#include <algorithm>
#include <cmath>

namespace halcyon::parallel {
namespace {

// The source rows and weights of aten/src/ATen/native/cpu/UpSampleKernel.cpp.
template <class Real>
Taps taps_in(const Resized& axis, int64_t o) {
  const auto scale = at::native::area_pixel_compute_scale<Real>(axis.input, axis.output,
                                                                axis.align_corners, axis.scale);
  const auto last = axis.input - 1;
  switch (axis.kind) {
    case Interpolation::nearest:
      return {1, {std::min(static_cast<int64_t>(std::floor(o * scale)), last)}, {1}};
    case Interpolation::nearest_exact: {
      const auto source = at::native::area_pixel_compute_source_index<Real>(scale, o, false, false);
      return {1, {std::min(static_cast<int64_t>(std::floor(source + Real(0.5))), last)}, {1}};
    }
    case Interpolation::linear: {
      int64_t rows[2];
      Real weights[2];
      at::native::compute_source_index_and_lambda<Real, Real>(rows[0], rows[1], weights[0],
                                                              weights[1], scale, o, axis.input,
                                                              axis.output, axis.align_corners);
      return {2, {rows[0], rows[1]}, {weights[0], weights[1]}};
    }
    case Interpolation::cubic:
      break;
  }
  const auto source =
      at::native::area_pixel_compute_source_index<Real>(scale, o, axis.align_corners, true);
  int64_t row;
  Real offset, weights[4];
  at::native::guard_index_and_lambda(source, axis.input, row, offset);
  at::native::get_cubic_upsample_coefficients<Real>(weights, offset);
  Taps taps{4, {}, {}};
  for (int64_t t = 0; t < 4; ++t) {
    taps.rows[t] = std::clamp<int64_t>(row - 1 + t, 0, last);
    taps.weights[t] = weights[t];
  }
  return taps;
}

}  // namespace

Taps taps_of(const Resized& axis, int64_t o) {
  return axis.in_double ? taps_in<double>(axis, o) : taps_in<float>(axis, o);
}

at::Tensor resize_axis(const at::Tensor& x, int64_t dim, const Resized& axis, int64_t first,
                       int64_t last, int64_t begin) {
  const auto n = last - first;
  const int count = n > 0 ? taps_of(axis, first).count : 1;
  auto rows = at::zeros({count, n}, at::kLong), weights = at::zeros({count, n}, at::kDouble);
  for (int64_t o = 0; o < n; ++o) {
    const auto taps = taps_of(axis, first + o);
    for (int t = 0; t < count; ++t) {
      rows.mutable_data_ptr<int64_t>()[t * n + o] = taps.rows[t] - begin;
      weights.mutable_data_ptr<double>()[t * n + o] = taps.weights[t];
    }
  }
  rows = rows.to(x.device());
  if (count == 1) return x.index_select(dim, rows[0]);
  std::vector<int64_t> along(x.dim(), 1);
  along[dim] = n;
  weights = weights.to(x.options());
  at::Tensor sum;
  for (int t = 0; t < count; ++t) {
    const auto taken = x.index_select(dim, rows[t]);
    const auto weight = weights[t].view(along);
    sum = sum.defined() ? at::addcmul(sum, taken, weight) : taken * weight;
  }
  return sum;
}

}  // namespace halcyon::parallel
