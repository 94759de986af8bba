// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/linear/linear.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "halcyon/ops/cpu_bf16.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/gelu/gelu.h"
#include "halcyon/ops/linear/routes.h"

namespace halcyon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Multiplications below which choosing costs more than it brings.
constexpr int64_t kLeast = int64_t{1} << 22;

// Who computes a product, and the type of its result.
struct Route {
  enum class By { operators, float_products, bf16_products } by = By::operators;
  at::ScalarType type = at::kFloat;
};
using By = Route::By;

Route route_of(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!x.defined() || !weight.defined()) return {};
  std::vector<at::Tensor> given{x, weight};
  if (bias.defined()) given.push_back(bias);
  const auto ours = [](const at::Tensor& t) {
    return t.device().is_cpu() && t.layout() == at::kStrided && !has_tangent(t);
  };
  const bool fits = std::all_of(given.begin(), given.end(), ours) && weight.dim() == 2 &&
                    x.dim() >= 2 && x.size(-1) == weight.size(1) &&
                    (!bias.defined() || bias.numel() == weight.size(0)) &&
                    x.numel() * weight.size(0) >= kLeast;
  if (!fits) return {};
  if (is_bf16_for_float(given)) return {By::float_products, at::kBFloat16};
  const auto type = cpu_result_type(given);
  const bool floats = std::all_of(given.begin(), given.end(),
                                  [](const auto& t) { return t.scalar_type() == at::kFloat; });
  if (floats && type == at::kFloat) return {By::float_products, at::kFloat};
  if (type == at::kBFloat16 && linear_detail::has_onednn())
    return {By::bf16_products, at::kBFloat16};
  return {};
}

// Products in float, also under autocast.
struct InFloat {
  at::AutoDispatchBelowADInplaceOrView below;
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
};

at::Tensor as_float(const at::Tensor& t) {
  return t.defined() ? t.to(at::kFloat) : t;
}

at::Tensor forward_in_float(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            Activation activation, at::ScalarType type) {
  const InFloat guard;
  const auto w = as_float(weight), b = as_float(bias);
  if (type == at::kFloat) return linear_detail::forward(as_float(x), w, b, activation);
  // pieces whose wide results malloc hands out again, instead of fresh pages for each
  constexpr int64_t kRows = 1024;
  const auto result = at::empty({x.size(0), weight.size(0)}, x.options().dtype(type));
  for (int64_t first = 0; first < x.size(0); first += kRows) {
    const int64_t count = std::min(kRows, x.size(0) - first);
    result.narrow(0, first, count)
        .copy_(linear_detail::forward(as_float(x.narrow(0, first, count)), w, b, activation));
  }
  return result;
}

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, at::ScalarType type) {
    context->save_for_backward({x, weight});
    if (bias) context->saved_data["bias"] = static_cast<int64_t>(bias->scalar_type());
    return forward_in_float(x, weight, bias.value_or(at::Tensor()), Activation::none, type);
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    variable_list result(4);
    const bool again = at::GradMode::is_enabled();  // somebody differentiates the gradient
    std::optional<InFloat> guard;
    if (!again) guard.emplace();
    const auto g = as_float(grad[0]);
    if (context->needs_input_grad(0)) {
      const auto w = as_float(weight);
      result[0] = (again ? at::mm(g, w) : linear_detail::input_gradient(g, w)).to(x.scalar_type());
    }
    if (context->needs_input_grad(1)) {
      const auto in = as_float(x);
      result[1] = (again ? at::mm(g.t(), in) : linear_detail::weight_gradient(g, in))
                      .to(weight.scalar_type());
    }
    const auto bias = context->saved_data.find("bias");
    if (bias != context->saved_data.end() && context->needs_input_grad(2))
      result[2] = g.sum(0).to(static_cast<at::ScalarType>(bias->second.toInt()));
    return result;
  }
};

}  // namespace

at::Tensor linear_layer(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        Activation activation) {
  const bool gelu = activation == Activation::gelu_tanh;
  const auto wanted = [](const at::Tensor& t) { return t.defined() && t.requires_grad(); };
  const bool inference =
      !at::GradMode::is_enabled() || !(wanted(x) || wanted(weight) || wanted(bias));
  const auto route = route_of(x, weight, bias);
  const auto given = bias.defined() ? std::optional(bias) : std::nullopt;
  // in bfloat16 there is only the pass of the activation to save
  if (route.by == By::operators || (route.by == By::bf16_products && !(gelu && inference))) {
    const auto y = at::linear(x, weight, given);
    return gelu ? gelu_tanh(y) : y;
  }
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  const auto rows = x.reshape({-1, x.size(-1)});
  if (route.by == By::bf16_products) {
    const auto narrow = [](const at::Tensor& t) { return t.defined() ? t.to(at::kBFloat16) : t; };
    return linear_detail::forward(narrow(rows), narrow(weight), narrow(bias), activation,
                                  linear_detail::Library::onednn)
        .view(shape);
  }
  if (inference) return forward_in_float(rows, weight, bias, activation, route.type).view(shape);
  const auto y = Linear::apply(rows, weight, given, route.type).view(shape);
  return gelu ? gelu_tanh(y) : y;
}

}  // namespace halcyon
