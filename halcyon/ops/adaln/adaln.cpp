// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/adaln/adaln.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "halcyon/ops/adaln/backends.h"
#include "halcyon/ops/checks.h"

namespace halcyon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_state(const at::Tensor& x, const char* operation, const char* name) {
  HALCYON_CHECK(
      x.defined() && (x.dim() == 3 || x.dim() == 4) && at::isFloatingType(x.scalar_type()),
      operation, "expected {} of rank 3 or 4 and a floating type, got {}", name, describe(x));
}

void check_condition(const at::Tensor& condition, const at::Tensor& x, const char* operation,
                     const char* name) {
  check_floating(condition, 2, operation, name);
  HALCYON_CHECK(condition.size(0) == x.size(0) && condition.size(1) == x.size(-1), operation,
                "expected {} of shape ({}, {}), got {}", name, x.size(0), x.size(-1),
                describe(condition));
  check_device(condition, x, operation, name);
}

void check_modulation(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                      const char* operation) {
  check_state(x, operation, "x");
  check_condition(shift, x, operation, "shift");
  check_condition(scale, x, operation, "scale");
}

// (B, C) -> (B, 1, ..., C)
at::Tensor along_middle(const at::Tensor& condition, const at::Tensor& x) {
  std::vector<int64_t> shape(x.dim(), 1);
  shape.front() = x.size(0);
  shape.back() = x.size(-1);
  return condition.reshape(shape);
}

at::Tensor composed_modulate(const at::Tensor& x, const at::Tensor& shift,
                             const at::Tensor& scale) {
  return at::addcmul(along_middle(shift, x), x, along_middle(scale, x) + 1);
}

at::Tensor composed_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                         double eps) {
  return composed_modulate(at::layer_norm(x, {x.size(-1)}, {}, {}, eps), shift, scale);
}

at::Tensor composed_gate(const at::Tensor& residual, const at::Tensor& branch,
                         const at::Tensor& gate) {
  return at::addcmul(residual, along_middle(gate, residual), branch);
}

at::ScalarType promoted(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
  return at::promoteTypes(at::promoteTypes(a.scalar_type(), b.scalar_type()), c.scalar_type());
}

// What the kernels store results of this type as.
at::ScalarType storage_of(at::ScalarType type) {
  return type == at::kDouble || type == at::kBFloat16 ? type : at::kFloat;
}

at::Tensor stored(const at::Tensor& x, at::ScalarType type) {
  return x.to(type).contiguous();
}

// The gradients of a composition in its inputs, themselves differentiable.
template <class F>
variable_list differentiable(const variable_list& inputs, const at::Tensor& grad, std::size_t size,
                             const F& composition) {
  const auto y = composition();
  variable_list result(size);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].requires_grad())
      result[i] = torch::autograd::grad({y}, {inputs[i]}, {grad}, true, true)[0];
  }
  return result;
}

struct NormModulate : torch::autograd::Function<NormModulate> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& shift,
                            const at::Tensor& scale, double eps) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto type = promoted(x, shift, scale);
    const auto normed = adaln_detail::norm_forward(stored(x, storage_of(type)), shift,
                                                   scale.to(at::toOpMathType(type)) + 1, eps);
    context->save_for_backward({x, shift, scale, normed.mean, normed.inverse});
    context->saved_data["eps"] = eps;
    return normed.out.to(type);
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &shift = saved[1], &scale = saved[2];
    if (at::GradMode::is_enabled()) {
      const double eps = context->saved_data["eps"].toDouble();
      return differentiable({x, shift, scale}, grad[0], 4,
                            [&] { return composed_norm(x, shift, scale, eps); });
    }
    const auto type = promoted(x, shift, scale), storage = storage_of(type);
    const auto result =
        adaln_detail::norm_backward(stored(grad[0], storage), stored(x, storage),
                                    scale.to(at::toOpMathType(type)) + 1, saved[3], saved[4]);
    return {result.x.to(x.scalar_type()),
            result.shift.to(shift.scalar_type()),
            result.factor.to(scale.scalar_type()),
            {}};
  }
};

struct GatedResidual : torch::autograd::Function<GatedResidual> {
  // The branch as the kernels take it beside a residual of this type.
  static at::Tensor narrow(const at::Tensor& branch, at::ScalarType storage) {
    const bool mixed = storage == at::kFloat && branch.scalar_type() == at::kBFloat16;
    return stored(branch, mixed ? at::kBFloat16 : storage);
  }

  static at::Tensor forward(AutogradContext* context, const at::Tensor& residual,
                            const at::Tensor& branch, const at::Tensor& gate) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto type = promoted(residual, branch, gate), storage = storage_of(type);
    context->save_for_backward({branch, gate});
    context->saved_data["residual"] = residual.scalar_type();
    return adaln_detail::gate_forward(stored(residual, storage), narrow(branch, storage), gate)
        .to(type);
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const auto saved = context->get_saved_variables();
    const auto &branch = saved[0], &gate = saved[1];
    const auto grad_residual = grad[0].to(context->saved_data["residual"].toScalarType());
    if (at::GradMode::is_enabled()) {
      auto result = differentiable({branch, gate}, grad[0], 2, [&] {
        return composed_gate(at::zeros_like(branch, grad[0].options()), branch, gate);
      });
      return {grad_residual, result[0], result[1]};
    }
    const auto storage = storage_of(grad[0].scalar_type());
    const auto result =
        adaln_detail::gate_backward(stored(grad[0], storage), narrow(branch, storage), gate);
    return {grad_residual, result.branch.to(branch.scalar_type()),
            result.gate.to(gate.scalar_type())};
  }
};

}  // namespace

at::Tensor modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale) {
  check_modulation(x, shift, scale, "modulate");
  return composed_modulate(x, shift, scale);
}

at::Tensor norm_modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                         double eps) {
  check_modulation(x, shift, scale, "norm_modulate");
  HALCYON_CHECK(eps >= 0, "norm_modulate", "expected an eps of 0 or more, got {}", eps);
  if (x.is_cpu() && x.numel() > 0) return NormModulate::apply(x, shift, scale, eps);
  return composed_norm(x, shift, scale, eps);
}

at::Tensor gated_residual(const at::Tensor& residual, const at::Tensor& branch,
                          const at::Tensor& gate) {
  constexpr auto kName = "gated_residual";
  check_state(residual, kName, "residual");
  check_state(branch, kName, "branch");
  HALCYON_CHECK(branch.sizes() == residual.sizes(), kName,
                "expected branch of residual's shape {}, got {}", describe(residual),
                describe(branch));
  check_device(branch, residual, kName, "branch");
  check_condition(gate, residual, kName, "gate");
  if (residual.is_cpu() && residual.numel() > 0)
    return GatedResidual::apply(residual, branch, gate);
  return composed_gate(residual, branch, gate);
}

}  // namespace halcyon
