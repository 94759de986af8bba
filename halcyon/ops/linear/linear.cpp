// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/linear/linear.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/linear/routes.h"

namespace halcyon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Multiplications below which choosing costs more than it brings.
constexpr int64_t kLeast = int64_t{1} << 22;

bool is_routed(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto ours = [](const at::Tensor& t) {
    return t.device().is_cpu() && t.scalar_type() == at::kFloat && t.layout() == at::kStrided &&
           !has_tangent(t);
  };
  return x.defined() && weight.defined() && ours(x) && ours(weight) &&
         (!bias.defined() || ours(bias)) && weight.dim() == 2 && x.dim() >= 2 &&
         x.size(-1) == weight.size(1) && (!bias.defined() || bias.numel() == weight.size(0)) &&
         x.numel() * weight.size(0) >= kLeast && !at::autocast::is_autocast_enabled(at::kCPU);
}

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight});
    context->saved_data["bias"] = bias.has_value();
    return linear_detail::forward(x, weight, bias.value_or(at::Tensor()), Activation::none);
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &g = grad[0];
    variable_list result(3);
    const bool again = at::GradMode::is_enabled();  // somebody differentiates the gradient
    if (context->needs_input_grad(0))
      result[0] = again ? at::mm(g, weight) : linear_detail::input_gradient(g, weight);
    if (context->needs_input_grad(1))
      result[1] = again ? at::mm(g.t(), x) : linear_detail::weight_gradient(g, x);
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) result[2] = g.sum(0);
    return result;
  }
};

}  // namespace

at::Tensor linear_layer(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        Activation activation) {
  const bool gelu = activation == Activation::gelu_tanh;
  if (!is_routed(x, weight, bias)) {
    const auto y = at::linear(x, weight, bias);
    return gelu ? at::gelu(y, "tanh") : y;
  }
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  const auto rows = x.reshape({-1, x.size(-1)});
  const auto wanted = [](const at::Tensor& t) { return t.defined() && t.requires_grad(); };
  if (!at::GradMode::is_enabled() || !(wanted(x) || wanted(weight) || wanted(bias))) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return linear_detail::forward(rows, weight, bias, activation).view(shape);
  }
  // autograd takes a missing tensor only as an empty optional
  const auto y =
      Linear::apply(rows, weight, bias.defined() ? std::optional(bias) : std::nullopt).view(shape);
  return gelu ? at::gelu(y, "tanh") : y;
}

}  // namespace halcyon
