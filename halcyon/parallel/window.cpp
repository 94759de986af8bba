// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/window.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"

namespace halcyon::parallel {

std::vector<int64_t> PerAxis::expand(int64_t n, const char* name, int64_t lowest,
                                     const std::string& operation) const {
  HALCYON_CHECK(values.size() == 1 || static_cast<int64_t>(values.size()) == n, operation,
                "expected {} as one number or {}, one for each spatial axis, got {} numbers", name,
                n, values.size());
  for (const auto value : values) {
    HALCYON_CHECK(value >= lowest, operation, "expected {} of at least {}, got {}", name, lowest,
                  value);
  }
  return values.size() == 1 ? std::vector<int64_t>(n, values[0]) : values;
}

int64_t spatial_axis_of(const at::Tensor& x, int64_t dim, int64_t n, const std::string& operation) {
  HALCYON_CHECK(x.defined(), operation, "expected a tensor x, got an undefined one");
  HALCYON_CHECK(1 <= n && n <= 3 && (x.dim() == n + 1 || x.dim() == n + 2), operation,
                "expected x of (batch, channels, {} spatial axes), with or without the batch, got "
                "{}",
                n, describe(x));
  const auto axis = dim < 0 ? dim + x.dim() : dim;
  HALCYON_CHECK(x.dim() - n <= axis && axis < x.dim(), operation,
                "expected dim as one of the last {} axes of x, the spatial ones, got dim {} of {}",
                n, dim, describe(x));
  return axis;
}

at::Tensor with_at_least(const at::Tensor& x, int64_t dim, int64_t rows) {
  const auto missing = rows - x.size(dim);
  if (missing <= 0) return x;
  std::vector<int64_t> pads(2 * (x.dim() - dim), 0);
  pads.back() = missing;
  return at::constant_pad_nd(x, pads);
}

at::Tensor as_autocast(const at::Tensor& x) {
  const auto device = x.device().type();
  if (!x.is_floating_point() || x.scalar_type() == at::kDouble ||
      !at::autocast::is_autocast_enabled(device)) {
    return x;
  }
  return x.to(at::autocast::get_autocast_dtype(device));
}

}  // namespace halcyon::parallel
