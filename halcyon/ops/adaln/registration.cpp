// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "halcyon/ops/adaln/adaln.h"
#include "halcyon/ops/adaln/backends.h"
#include "halcyon/ops/dispatch.h"

// torch.ops.halcyon.modulate, norm_modulate and gated_residual, and the inner operators between
// which autograd stands.
namespace halcyon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using ThreeTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

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

at::Tensor like(const at::Tensor& t) {
  return at::empty_symint(t.sym_sizes(), t.options());
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

ThreeTensors norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                  double eps) {
  const auto type = promoted(x, shift, scale);
  auto normed = adaln_detail::norm_forward(stored(x, storage_of(type)), shift,
                                           scale.to(at::toOpMathType(type)) + 1, eps);
  return {normed.out.to(type), std::move(normed.mean), std::move(normed.inverse)};
}

ThreeTensors norm_meta(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                       double /*eps*/) {
  const auto type = promoted(x, shift, scale);
  auto rows = x.sym_size(1);
  if (x.dim() == 4) rows = rows * x.sym_size(2);
  const auto sums = [&] {
    return at::empty_symint({x.sym_size(0), rows}, x.options().dtype(at::toOpMathType(type)));
  };
  return {at::empty_symint(x.sym_sizes(), x.options().dtype(type)), sums(), sums()};
}

ThreeTensors norm_backward(const at::Tensor& grad_out, const at::Tensor& x, const at::Tensor& shift,
                           const at::Tensor& scale, const at::Tensor& mean,
                           const at::Tensor& inverse) {
  const auto type = promoted(x, shift, scale), storage = storage_of(type);
  const auto result =
      adaln_detail::norm_backward(stored(grad_out, storage), stored(x, storage),
                                  scale.to(at::toOpMathType(type)) + 1, mean, inverse);
  return {result.x.to(x.scalar_type()), result.shift.to(shift.scalar_type()),
          result.factor.to(scale.scalar_type())};
}

ThreeTensors norm_backward_meta(const at::Tensor& /*grad_out*/, const at::Tensor& x,
                                const at::Tensor& shift, const at::Tensor& scale,
                                const at::Tensor& /*mean*/, const at::Tensor& /*inverse*/) {
  return {like(x), like(shift), like(scale)};
}

struct NormModulate : torch::autograd::Function<NormModulate> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const at::Tensor& shift, const at::Tensor& scale, double eps) {
    static const auto op = operator_named<decltype(norm)>("halcyon::_norm_modulate");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [out, mean, inverse] = op.call(x, shift, scale, eps);
    context->save_for_backward({x, shift, scale, mean, inverse});
    context->saved_data["eps"] = eps;
    context->mark_non_differentiable({mean, inverse});
    return {out, mean, inverse};
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    static const auto op =
        operator_named<decltype(norm_backward)>("halcyon::_norm_modulate_backward");
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &shift = saved[1], &scale = saved[2];
    if (at::GradMode::is_enabled()) {
      const double eps = context->saved_data["eps"].toDouble();
      return differentiable({x, shift, scale}, grad[0], 4,
                            [&] { return adaln_detail::composed_norm(x, shift, scale, eps); });
    }
    auto [of_x, of_shift, of_scale] = op.call(grad[0], x, shift, scale, saved[3], saved[4]);
    return {of_x, of_shift, of_scale, {}};
  }
};

ThreeTensors norm_autograd(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                           double eps) {
  const auto result = NormModulate::apply(x, shift, scale, eps);
  return {result[0], result[1], result[2]};
}

// The branch as the kernels take it beside a residual of this type.
at::Tensor narrow(const at::Tensor& branch, at::ScalarType storage) {
  const bool mixed = storage == at::kFloat && branch.scalar_type() == at::kBFloat16;
  return stored(branch, mixed ? at::kBFloat16 : storage);
}

at::Tensor gate(const at::Tensor& residual, const at::Tensor& branch, const at::Tensor& gate) {
  const auto type = promoted(residual, branch, gate), storage = storage_of(type);
  return adaln_detail::gate_forward(stored(residual, storage), narrow(branch, storage), gate)
      .to(type);
}

at::Tensor gate_meta(const at::Tensor& residual, const at::Tensor& branch, const at::Tensor& gate) {
  return at::empty_symint(residual.sym_sizes(),
                          residual.options().dtype(promoted(residual, branch, gate)));
}

std::tuple<at::Tensor, at::Tensor> gate_backward(const at::Tensor& grad_out,
                                                 const at::Tensor& branch, const at::Tensor& gate) {
  const auto storage = storage_of(grad_out.scalar_type());
  const auto result =
      adaln_detail::gate_backward(stored(grad_out, storage), narrow(branch, storage), gate);
  return {result.branch.to(branch.scalar_type()), result.gate.to(gate.scalar_type())};
}

std::tuple<at::Tensor, at::Tensor> gate_backward_meta(const at::Tensor& /*grad_out*/,
                                                      const at::Tensor& branch,
                                                      const at::Tensor& gate) {
  return {like(branch), like(gate)};
}

struct GatedResidual : torch::autograd::Function<GatedResidual> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& residual,
                            const at::Tensor& branch, const at::Tensor& gate) {
    static const auto op = operator_named<decltype(halcyon::gate)>("halcyon::_gated_residual");
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({branch, gate});
    context->saved_data["residual"] = residual.scalar_type();
    return op.call(residual, branch, gate);
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    static const auto op =
        operator_named<decltype(gate_backward)>("halcyon::_gated_residual_backward");
    const auto saved = context->get_saved_variables();
    const auto &branch = saved[0], &gate = saved[1];
    const auto grad_residual = grad[0].to(context->saved_data["residual"].toScalarType());
    if (at::GradMode::is_enabled()) {
      auto result = differentiable({branch, gate}, grad[0], 2, [&] {
        return adaln_detail::composed_gate(at::zeros_like(branch, grad[0].options()), branch, gate);
      });
      return {grad_residual, result[0], result[1]};
    }
    auto [of_branch, of_gate] = op.call(grad[0], branch, gate);
    return {grad_residual, of_branch, of_gate};
  }
};

at::Tensor gate_autograd(const at::Tensor& residual, const at::Tensor& branch,
                         const at::Tensor& gate) {
  return GatedResidual::apply(residual, branch, gate);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  const auto composite = c10::DispatchKey::CompositeImplicitAutograd;
  m.def("modulate(Tensor x, Tensor shift, Tensor scale) -> Tensor",
        torch::dispatch(composite, TORCH_FN(modulate)));
  m.def("norm_modulate(Tensor x, Tensor shift, Tensor scale, float eps) -> Tensor",
        torch::dispatch(composite, TORCH_FN(norm_modulate)));
  m.def("gated_residual(Tensor residual, Tensor branch, Tensor gate) -> Tensor",
        torch::dispatch(composite, TORCH_FN(gated_residual)));
  m.def(
      "_norm_modulate(Tensor x, Tensor shift, Tensor scale, float eps) -> "
      "(Tensor, Tensor, Tensor)");
  m.def(
      "_norm_modulate_backward(Tensor grad_out, Tensor x, Tensor shift, Tensor scale, Tensor mean, "
      "Tensor inverse) -> (Tensor, Tensor, Tensor)");
  m.def("_gated_residual(Tensor residual, Tensor branch, Tensor gate) -> Tensor");
  m.def(
      "_gated_residual_backward(Tensor grad_out, Tensor branch, Tensor gate) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(halcyon, CPU, m) {
  m.impl("_norm_modulate", TORCH_FN(norm));
  m.impl("_norm_modulate_backward", TORCH_FN(norm_backward));
  m.impl("_gated_residual", TORCH_FN(gate));
  m.impl("_gated_residual_backward", TORCH_FN(gate_backward));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_norm_modulate", TORCH_FN(norm_meta));
  m.impl("_norm_modulate_backward", TORCH_FN(norm_backward_meta));
  m.impl("_gated_residual", TORCH_FN(gate_meta));
  m.impl("_gated_residual_backward", TORCH_FN(gate_backward_meta));
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_norm_modulate", TORCH_FN(norm_autograd));
  m.impl("_gated_residual", TORCH_FN(gate_autograd));
}

}  // namespace halcyon
