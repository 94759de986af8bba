// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/adaln/adaln.h"

#include <ATen/ATen.h>

#include "halcyon/ops/adaln/backends.h"
#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"

namespace halcyon {
namespace {

void check_state(const at::Tensor& x, const char* operation, const char* name) {
  HALCYON_CHECK(
      x.defined() && (x.dim() == 3 || x.dim() == 4) && at::isFloatingType(x.scalar_type()),
      operation, "expected {} of rank 3 or 4 and a floating type, got {}", name, describe(x));
}

void check_condition(const at::Tensor& condition, const at::Tensor& x, const char* operation,
                     const char* name) {
  check_floating(condition, 2, operation, name);
  check_shape(condition, {x.sym_size(0), x.sym_size(-1)}, operation, name);
  check_device(condition, x, operation, name);
}

void check_modulation(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                      const char* operation) {
  check_state(x, operation, "x");
  check_condition(shift, x, operation, "shift");
  check_condition(scale, x, operation, "scale");
}

}  // namespace

namespace adaln_detail {
namespace {

// (B, C) -> (B, 1, ..., C)
at::Tensor along_middle(const at::Tensor& condition, const at::Tensor& x) {
  return x.dim() == 3 ? condition.unsqueeze(1) : condition.unsqueeze(1).unsqueeze(1);
}

}  // namespace

at::Tensor composed_modulate(const at::Tensor& x, const at::Tensor& shift,
                             const at::Tensor& scale) {
  return at::addcmul(along_middle(shift, x), x, along_middle(scale, x) + 1);
}

at::Tensor composed_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                         double eps) {
  return composed_modulate(at::layer_norm_symint(x, {x.sym_size(-1)}, {}, {}, eps), shift, scale);
}

at::Tensor composed_gate(const at::Tensor& residual, const at::Tensor& branch,
                         const at::Tensor& gate) {
  return at::addcmul(residual, along_middle(gate, residual), branch);
}

}  // namespace adaln_detail

at::Tensor modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale) {
  check_modulation(x, shift, scale, "modulate");
  return adaln_detail::composed_modulate(x, shift, scale);
}

at::Tensor norm_modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                         double eps) {
  check_modulation(x, shift, scale, "norm_modulate");
  HALCYON_CHECK(eps >= 0, "norm_modulate", "expected an eps of 0 or more, got {}", eps);
  if (!x.is_cpu() || needs_composition({x, shift, scale}))
    return adaln_detail::composed_norm(x, shift, scale, eps);
  using Kernel = std::tuple<at::Tensor, at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, double);
  static const auto op = operator_named<Kernel>("halcyon::_norm_modulate");
  return std::get<0>(op.call(x, shift, scale, eps));
}

at::Tensor gated_residual(const at::Tensor& residual, const at::Tensor& branch,
                          const at::Tensor& gate) {
  constexpr auto kName = "gated_residual";
  check_state(residual, kName, "residual");
  check_state(branch, kName, "branch");
  HALCYON_CHECK(branch.sym_sizes() == residual.sym_sizes(), kName,
                "expected branch of residual's shape {}, got {}", describe(residual),
                describe(branch));
  check_device(branch, residual, kName, "branch");
  check_condition(gate, residual, kName, "gate");
  if (!residual.is_cpu() || needs_composition({residual, branch, gate}))
    return adaln_detail::composed_gate(residual, branch, gate);
  using Kernel = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&);
  static const auto op = operator_named<Kernel>("halcyon::_gated_residual");
  return op.call(residual, branch, gate);
}

}  // namespace halcyon
