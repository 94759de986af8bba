// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/linear/linear.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

#include "halcyon/base/error.h"
#include "halcyon/ops/cpu_bf16.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/gelu/gelu.h"
#include "halcyon/ops/linear/routes.h"

namespace halcyon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<at::Tensor>;

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
    return t.device().is_cpu() && t.layout() == at::kStrided;
  };
  const bool fits = std::all_of(given.begin(), given.end(), ours) &&
                    !needs_composition({x, weight, bias}) && weight.dim() == 2 && x.dim() >= 2 &&
                    x.sym_size(-1) == weight.sym_size(1) &&
                    (!bias.defined() || bias.sym_numel() == weight.sym_size(0)) &&
                    // a graph for any number of rows is not tied to a side of the bound
                    (has_symbols(x) || x.sym_numel() * weight.sym_size(0) >= kLeast);
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

// activation(x W^T + b) of x (M, in) in this type: bfloat16 by oneDNN where that is fast.
at::Tensor forward(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& bias,
                   at::ScalarType type, bool gelu) {
  const auto activation = gelu ? Activation::gelu_tanh : Activation::none;
  const auto b = bias.value_or(at::Tensor());
  if (type == at::kBFloat16 && has_fast_bf16()) {
    const auto narrow = [](const at::Tensor& t) { return t.defined() ? t.to(at::kBFloat16) : t; };
    if (linear_detail::has_onednn()) {
      return linear_detail::forward(narrow(x), narrow(weight), narrow(b), activation,
                                    linear_detail::Library::onednn);
    }
  }
  return forward_in_float(x, weight, b, activation, type);
}

at::Tensor forward_meta(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& /*bias*/,
                        at::ScalarType type, bool /*gelu*/) {
  return at::empty_symint({x.sym_size(0), weight.sym_size(0)}, x.options().dtype(type));
}

// The gradients of x and weight, none where they are not asked for.
std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad_out, const at::Tensor& x,
                                            const at::Tensor& weight, bool of_x, bool of_weight) {
  const InFloat guard;
  const auto g = as_float(grad_out);
  const auto none = at::empty({0}, x.options());
  return {
      of_x ? linear_detail::input_gradient(g, as_float(weight)).to(x.scalar_type()) : none,
      of_weight ? linear_detail::weight_gradient(g, as_float(x)).to(weight.scalar_type()) : none};
}

std::tuple<at::Tensor, at::Tensor> backward_meta(const at::Tensor& /*grad_out*/,
                                                 const at::Tensor& x, const at::Tensor& weight,
                                                 bool of_x, bool of_weight) {
  const auto like = [&](const at::Tensor& t, bool wanted) {
    return wanted ? at::empty_symint(t.sym_sizes(), t.options()) : at::empty({0}, x.options());
  };
  return {like(x, of_x), like(weight, of_weight)};
}

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const MaybeTensor& bias, at::ScalarType type) {
    static const auto op = operator_named<decltype(halcyon::forward)>("halcyon::_linear");
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight});
    if (bias) context->saved_data["bias"] = static_cast<int64_t>(bias->scalar_type());
    return op.call(x, weight, bias, type, /*gelu=*/false);
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    static const auto op = operator_named<decltype(halcyon::backward)>("halcyon::_linear_backward");
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    variable_list result(4);
    const bool of_x = context->needs_input_grad(0), of_weight = context->needs_input_grad(1);
    const auto g = as_float(grad[0]);
    if (at::GradMode::is_enabled()) {  // somebody differentiates the gradient
      if (of_x) result[0] = at::mm(g, as_float(weight)).to(x.scalar_type());
      if (of_weight) result[1] = at::mm(g.t(), as_float(x)).to(weight.scalar_type());
    } else if (of_x || of_weight) {
      auto [dx, dw] = op.call(g, x, weight, of_x, of_weight);
      if (of_x) result[0] = dx;
      if (of_weight) result[1] = dw;
    }
    const auto bias = context->saved_data.find("bias");
    if (bias != context->saved_data.end() && context->needs_input_grad(2))
      result[2] = g.sum(0).to(static_cast<at::ScalarType>(bias->second.toInt()));
    return result;
  }
};

at::Tensor autograd(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& bias,
                    at::ScalarType type, bool gelu) {
  const auto y = Linear::apply(x, weight, bias, type);
  return gelu ? gelu_tanh(y) : y;
}

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
  static const auto op = operator_named<decltype(forward)>("halcyon::_linear");
  auto shape = x.sym_sizes().vec();
  shape.back() = weight.sym_size(0);
  const auto rows = x.flatten(0, -2);
  if (inference) return op.call(rows, weight, given, route.type, gelu).view_symint(shape);
  const auto y = op.call(rows, weight, given, route.type, false).view_symint(shape);
  return gelu ? gelu_tanh(y) : y;
}

namespace {

at::Tensor public_linear(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& bias,
                         std::string_view activation) {
  HALCYON_CHECK(activation == "none" || activation == "gelu_tanh", "linear",
                "expected activation \"none\" or \"gelu_tanh\", got \"{}\"", activation);
  return linear_layer(x, weight, bias.value_or(at::Tensor()),
                      activation == "none" ? Activation::none : Activation::gelu_tanh);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias=None, str activation=\"none\") -> Tensor",
        torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(public_linear)));
  m.def("_linear(Tensor x, Tensor weight, Tensor? bias, ScalarType type, bool gelu) -> Tensor");
  m.def(
      "_linear_backward(Tensor grad_out, Tensor x, Tensor weight, bool of_x, bool of_weight) -> "
      "(Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(halcyon, CPU, m) {
  m.impl("_linear", TORCH_FN(forward));
  m.impl("_linear_backward", TORCH_FN(backward));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_linear", TORCH_FN(forward_meta));
  m.impl("_linear_backward", TORCH_FN(backward_meta));
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_linear", TORCH_FN(autograd));
}

}  // namespace halcyon
