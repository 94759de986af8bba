// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/adaln.h"

#include <ATen/ATen.h>

#include "halcyon/ops/checks.h"

namespace halcyon {
namespace {

void check_state(const at::Tensor& x, const char* operation, const char* name) {
  HALCYON_CHECK(
      x.defined() && (x.dim() == 3 || x.dim() == 4) && at::isFloatingType(x.scalar_type()),
      operation, "expected {} of rank 3 or 4 and a floating type, got {}", name, describe(x));
}

// (B, C) -> (B, 1, ..., C)
at::Tensor along_middle(const at::Tensor& condition, const at::Tensor& x, const char* operation,
                        const char* name) {
  check_floating(condition, 2, operation, name);
  HALCYON_CHECK(condition.size(0) == x.size(0) && condition.size(1) == x.size(-1), operation,
                "expected {} of shape ({}, {}), got {}", name, x.size(0), x.size(-1),
                describe(condition));
  check_device(condition, x, operation, name);
  std::vector<int64_t> shape(x.dim(), 1);
  shape.front() = x.size(0);
  shape.back() = x.size(-1);
  return condition.reshape(shape);
}

}  // namespace

at::Tensor modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale) {
  check_state(x, "modulate", "x");
  const auto offset = along_middle(shift, x, "modulate", "shift");
  const auto factor = along_middle(scale, x, "modulate", "scale");
  return at::addcmul(offset, x, factor + 1);
}

at::Tensor gated_residual(const at::Tensor& residual, const at::Tensor& branch,
                          const at::Tensor& gate) {
  check_state(residual, "gated_residual", "residual");
  check_state(branch, "gated_residual", "branch");
  HALCYON_CHECK(branch.sizes() == residual.sizes(), "gated_residual",
                "expected branch of residual's shape {}, got {}", describe(residual),
                describe(branch));
  check_device(branch, residual, "gated_residual", "branch");
  return at::addcmul(residual, along_middle(gate, residual, "gated_residual", "gate"), branch);
}

}  // namespace halcyon
