// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/taps.h"

#include <ATen/ATen.h>
#include <ATen/native/UpSample.h>

#include <algorithm>
#include <cmath>

namespace halcyon::parallel {
namespace {

// area_pixel_compute_source_index in one rounding, as the vectorised builds of ATen contract it.
template <class Real>
Real source_of(const Resized& axis, int64_t o) {
  const auto scale = at::native::area_pixel_compute_scale<Real>(axis.input, axis.output,
                                                                axis.align_corners, axis.scale);
  if (axis.align_corners) return scale * static_cast<Real>(o);
  const auto source = std::fma(scale, static_cast<Real>(o) + Real(0.5), Real(-0.5));
  return axis.kind == Interpolation::cubic ? source : std::max(source, Real(0));
}

// Of small outputs of two axes ATen takes another path, which differs where the scale that the
// caller named is not just that of the sizes.
template <class Real>
int64_t nearest_row(const Resized& axis, int64_t o) {
  const bool is_exact = axis.kind == Interpolation::nearest_exact;
  if (axis.is_small) {
    const auto row = is_exact ? at::native::nearest_exact_idx : at::native::nearest_idx;
    return row(o, axis.input, axis.output, axis.scale);
  }
  const auto scale =
      at::native::area_pixel_compute_scale<Real>(axis.input, axis.output, false, axis.scale);
  const auto source =
      is_exact ? source_of<Real>(axis, o) + Real(0.5) : scale * static_cast<Real>(o);
  return std::min(static_cast<int64_t>(std::floor(source)), axis.input - 1);
}

// The source rows and weights of aten/src/ATen/native/cpu/UpSampleKernel.cpp.
template <class Real>
Taps taps_in(const Resized& axis, int64_t o) {
  if (axis.kind == Interpolation::nearest || axis.kind == Interpolation::nearest_exact) {
    return {1, {nearest_row<Real>(axis, o)}, {1}};
  }
  const bool is_linear = axis.kind == Interpolation::linear;
  if (is_linear && axis.input == axis.output) return {1, {o}, {1}};
  int64_t row;
  Real offset;
  at::native::guard_index_and_lambda(source_of<Real>(axis, o), axis.input, row, offset);
  const auto last = axis.input - 1;
  if (is_linear) return {2, {row, std::min(row + 1, last)}, {Real(1) - offset, offset}};
  Real weights[4];
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
