// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/gelu/gelu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "halcyon/ops/cpu_level.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/gelu/cpu_kernel.h"

namespace halcyon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kGrain = 1 << 14;

const gelu_detail::KernelTable& kernels() {
  static const auto table = at_level(cpu_level(), gelu_detail::kernels_default,
                                     gelu_detail::kernels_avx2, gelu_detail::kernels_avx512)();
  return table;
}

template <class S>
at::Tensor run(const gelu_detail::Kernels<S>& kernel, const at::Tensor& x,
               const std::optional<at::Tensor>& grad_y) {
  const auto in = x.contiguous(), up = grad_y ? grad_y->to(x.scalar_type()).contiguous() : in;
  const auto out = at::empty(x.sizes(), x.options());
  const auto *const from = static_cast<const S*>(in.const_data_ptr()), *const grad =
                                                                           static_cast<const S*>(
                                                                               up.const_data_ptr());
  auto* const to = static_cast<S*>(out.mutable_data_ptr());
  at::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    if (grad_y) {
      kernel.backward(end - begin, grad + begin, from + begin, to + begin);
    } else {
      kernel.forward(end - begin, from + begin, to + begin);
    }
  });
  return out;
}

// The value at x, or the gradient of x, in float or bfloat16.
at::Tensor compute(const at::Tensor& x, const std::optional<at::Tensor>& grad_y = {}) {
  return x.scalar_type() == at::kFloat ? run(kernels().f32, x, grad_y)
                                       : run(kernels().bf16, x, grad_y);
}

at::Tensor forward(const at::Tensor& x) {
  return compute(x);
}

at::Tensor backward(const at::Tensor& grad_out, const at::Tensor& x) {
  return compute(x, grad_out);
}

at::Tensor meta(const at::Tensor& x) {
  return at::empty_symint(x.sym_sizes(), x.options());
}

struct GeluTanh : torch::autograd::Function<GeluTanh> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x) {
    static const auto op = operator_named<decltype(halcyon::forward)>("halcyon::_gelu_tanh");
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x});
    return op.call(x);
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    static const auto op =
        operator_named<decltype(halcyon::backward)>("halcyon::_gelu_tanh_backward");
    const auto x = context->get_saved_variables()[0];
    // somebody differentiates the gradient
    if (at::GradMode::is_enabled()) return {at::gelu_backward(grad[0], x, "tanh")};
    return {op.call(grad[0], x)};
  }
};

at::Tensor autograd(const at::Tensor& x) {
  return GeluTanh::apply(x);
}

}  // namespace

at::Tensor gelu_tanh(const at::Tensor& x) {
  const bool ours = x.is_cpu() && x.layout() == at::kStrided && !needs_composition({x}) &&
                    (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
  if (!ours) return at::gelu(x, "tanh");
  static const auto op = operator_named<decltype(forward)>("halcyon::_gelu_tanh");
  return op.call(x);
}

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  m.def("gelu_tanh(Tensor x) -> Tensor",
        torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(gelu_tanh)));
  m.def("_gelu_tanh(Tensor x) -> Tensor");
  m.def("_gelu_tanh_backward(Tensor grad_out, Tensor x) -> Tensor");
}

TORCH_LIBRARY_IMPL(halcyon, CPU, m) {
  m.impl("_gelu_tanh", TORCH_FN(forward));
  m.impl("_gelu_tanh_backward", TORCH_FN(backward));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_gelu_tanh", TORCH_FN(meta));
  m.impl("_gelu_tanh_backward",
         [](const at::Tensor& /*grad_out*/, const at::Tensor& x) { return meta(x); });
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_gelu_tanh", TORCH_FN(autograd));
}

}  // namespace halcyon
