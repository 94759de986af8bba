// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/gelu/gelu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

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

// f(table entry, a type of its storage) for float and bfloat16.
template <class F>
void with_kernels(at::ScalarType type, const F& f) {
  if (type == at::kFloat) f(kernels().f32, float());
  if (type == at::kBFloat16) f(kernels().bf16, Bf16());
}

struct GeluTanh : torch::autograd::Function<GeluTanh> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x) {
    context->save_for_backward({x});
    const auto dense = x.contiguous();
    const auto y = at::empty(x.sizes(), x.options());
    with_kernels(x.scalar_type(), [&]<class S>(const auto& kernel, S) {
      const auto* const from = static_cast<const S*>(dense.const_data_ptr());
      auto* const to = static_cast<S*>(y.mutable_data_ptr());
      at::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
        kernel.forward(end - begin, from + begin, to + begin);
      });
    });
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const auto x = context->get_saved_variables()[0];
    // somebody differentiates the gradient
    if (at::GradMode::is_enabled()) return {at::gelu_backward(grad[0], x, "tanh")};
    const auto dense = x.contiguous(), grad_y = grad[0].to(x.scalar_type()).contiguous();
    const auto grad_x = at::empty(x.sizes(), x.options());
    with_kernels(x.scalar_type(), [&]<class S>(const auto& kernel, S) {
      const auto* const from = static_cast<const S*>(dense.const_data_ptr());
      const auto* const up = static_cast<const S*>(grad_y.const_data_ptr());
      auto* const to = static_cast<S*>(grad_x.mutable_data_ptr());
      at::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
        kernel.backward(end - begin, up + begin, from + begin, to + begin);
      });
    });
    return {grad_x};
  }
};

}  // namespace

at::Tensor gelu_tanh(const at::Tensor& x) {
  const bool ours = x.is_cpu() && x.layout() == at::kStrided && !has_tangent(x) &&
                    (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
  return ours ? GeluTanh::apply(x) : at::gelu(x, "tanh");
}

}  // namespace halcyon
