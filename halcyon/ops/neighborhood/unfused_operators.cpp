// SPDX-License-Identifier: Apache-2.0
// The products of unfused neighborhood attention as operators of torch.ops.halcyon. The derivatives
// of each are the others, so reverse mode goes to any order.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <limits>

#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/neighborhood/operators.h"
#include "halcyon/ops/neighborhood/unfused_backends.h"

namespace halcyon::neighborhood {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<at::Tensor>;
using TwoTensors = std::tuple<at::Tensor, at::Tensor>;

int64_t window_of(at::IntArrayRef axes) {
  int64_t window = 1;
  for (const auto& axis : axes_of(axes)) window *= axis.kernel;
  return window;
}

// masked: unused slots hold -infinity, else 0. (Not the number itself: an exported graph's JSON has
// no infinity.)
at::Tensor scores(const at::Tensor& x, const at::Tensor& y, const MaybeTensor& bias,
                  const MaybeTensor& more, at::IntArrayRef axes, bool masked) {
  return window_scores(x, y, bias, more, axes_of(axes),
                       masked ? -std::numeric_limits<double>::infinity() : 0.0);
}

at::Tensor sums(const at::Tensor& attn, const at::Tensor& y, const MaybeTensor& more,
                at::IntArrayRef axes) {
  return window_sums(attn, y, more, axes_of(axes));
}

TwoTensors key_sums(const at::Tensor& attn, const at::Tensor& x, at::IntArrayRef axes) {
  auto [keys, more] = window_key_sums(attn, x, axes_of(axes));
  return {std::move(keys), std::move(more)};
}

at::Tensor bias_sums(const at::Tensor& attn, at::IntArrayRef axes) {
  return window_bias_sums(attn, axes_of(axes));
}

at::Tensor scores_meta(const at::Tensor& x, const at::Tensor& /*y*/, const MaybeTensor& /*bias*/,
                       const MaybeTensor& more, at::IntArrayRef axes, bool /*masked*/) {
  auto shape = x.sym_sizes().vec();
  shape.back() = c10::SymInt(window_of(axes));
  if (more) shape.back() += more->sym_size(2);
  return at::empty_symint(shape, x.options());
}

at::Tensor sums_meta(const at::Tensor& /*attn*/, const at::Tensor& y, const MaybeTensor& /*more*/,
                     at::IntArrayRef /*axes*/) {
  return at::empty_symint(y.sym_sizes(), y.options());
}

TwoTensors key_sums_meta(const at::Tensor& attn, const at::Tensor& x, at::IntArrayRef axes) {
  return {at::empty_symint(x.sym_sizes(), x.options()),
          at::empty_symint(
              {x.sym_size(0), x.sym_size(1), attn.sym_size(-1) - window_of(axes), x.sym_size(-1)},
              x.options())};
}

at::Tensor bias_sums_meta(const at::Tensor& attn, at::IntArrayRef axes) {
  std::vector<c10::SymInt> shape{attn.sym_size(1)};
  for (const auto& axis : axes_of(axes)) shape.emplace_back(2 * axis.kernel - 1);
  return at::empty_symint(shape, attn.options());
}

// Through the dispatcher.
at::Tensor call_scores(const at::Tensor& x, const at::Tensor& y, const MaybeTensor& bias,
                       const MaybeTensor& more, at::IntArrayRef axes, bool masked) {
  static const auto op = operator_named<decltype(scores)>("halcyon::_neighborhood_scores");
  return op.call(x, y, bias, more, axes, masked);
}
at::Tensor call_sums(const at::Tensor& attn, const at::Tensor& y, const MaybeTensor& more,
                     at::IntArrayRef axes) {
  static const auto op = operator_named<decltype(sums)>("halcyon::_neighborhood_sums");
  return op.call(attn, y, more, axes);
}
TwoTensors call_key_sums(const at::Tensor& attn, const at::Tensor& x, at::IntArrayRef axes) {
  static const auto op = operator_named<decltype(key_sums)>("halcyon::_neighborhood_key_sums");
  return op.call(attn, x, axes);
}
at::Tensor call_bias_sums(const at::Tensor& attn, at::IntArrayRef axes) {
  static const auto op = operator_named<decltype(bias_sums)>("halcyon::_neighborhood_bias_sums");
  return op.call(attn, axes);
}

// What was given to save_for_backward, an empty tensor where there was none.
MaybeTensor maybe(const at::Tensor& t) {
  return t.defined() ? MaybeTensor(t) : std::nullopt;
}

struct Scores : torch::autograd::Function<Scores> {
  static Variable forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& y,
                          const MaybeTensor& bias, const MaybeTensor& more, at::IntArrayRef axes,
                          bool masked) {
    context->save_for_backward({x, y, more.value_or(at::Tensor())});
    context->saved_data["axes"] = axes.vec();
    context->saved_data["bias"] = bias.has_value();
    at::AutoDispatchBelowADInplaceOrView below;
    return call_scores(x, y, bias, more, axes, masked);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad) {
    const auto saved = context->get_saved_variables();
    const auto axes = context->saved_data["axes"].toIntVector();
    const bool bias = context->saved_data["bias"].toBool(), more = saved[2].defined();
    // inputs are counted without the tensors that are not there
    const std::size_t more_at = bias ? 3 : 2;
    variable_list result(6);
    if (context->needs_input_grad(0))
      result[0] = call_sums(grad[0], saved[1], maybe(saved[2]), axes);
    if (context->needs_input_grad(1) || (more && context->needs_input_grad(more_at))) {
      auto [of_y, of_more] = call_key_sums(grad[0], saved[0], axes);
      result[1] = std::move(of_y);
      if (more) result[3] = std::move(of_more);
    }
    if (bias && context->needs_input_grad(2)) result[2] = call_bias_sums(grad[0], axes);
    return result;
  }
};

struct Sums : torch::autograd::Function<Sums> {
  static Variable forward(AutogradContext* context, const at::Tensor& attn, const at::Tensor& y,
                          const MaybeTensor& more, at::IntArrayRef axes) {
    context->save_for_backward({attn, y, more.value_or(at::Tensor())});
    context->saved_data["axes"] = axes.vec();
    at::AutoDispatchBelowADInplaceOrView below;
    return call_sums(attn, y, more, axes);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad) {
    const auto saved = context->get_saved_variables();
    const auto axes = context->saved_data["axes"].toIntVector();
    const bool more = saved[2].defined();
    variable_list result(4);
    if (context->needs_input_grad(0))
      result[0] = call_scores(grad[0], saved[1], {}, maybe(saved[2]), axes, false);
    if (context->needs_input_grad(1) || (more && context->needs_input_grad(2))) {
      auto [of_y, of_more] = call_key_sums(saved[0], grad[0], axes);
      result[1] = std::move(of_y);
      if (more) result[2] = std::move(of_more);
    }
    return result;
  }
};

struct KeySumsFunction : torch::autograd::Function<KeySumsFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& attn,
                               const at::Tensor& x, at::IntArrayRef axes) {
    context->save_for_backward({attn, x});
    context->saved_data["axes"] = axes.vec();
    at::AutoDispatchBelowADInplaceOrView below;
    auto [keys, more] = call_key_sums(attn, x, axes);
    return {keys, more};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad) {
    const auto saved = context->get_saved_variables();
    const auto axes = context->saved_data["axes"].toIntVector();
    variable_list result(3);
    if (context->needs_input_grad(0))
      result[0] = call_scores(saved[1], grad[0], {}, grad[1], axes, false);
    if (context->needs_input_grad(1)) result[1] = call_sums(saved[0], grad[0], grad[1], axes);
    return result;
  }
};

struct BiasSumsFunction : torch::autograd::Function<BiasSumsFunction> {
  static Variable forward(AutogradContext* context, const at::Tensor& attn, at::IntArrayRef axes) {
    context->saved_data["axes"] = axes.vec();
    context->saved_data["shape"] = attn.sym_sizes();
    at::AutoDispatchBelowADInplaceOrView below;
    return call_bias_sums(attn, axes);
  }

  // Every score is its bias: the scores of tokens without channels.
  static variable_list backward(AutogradContext* context, const variable_list& grad) {
    const auto axes = context->saved_data["axes"].toIntVector();
    auto shape = context->saved_data["shape"].toSymIntVector();
    const auto more = shape.back() - window_of(axes);
    shape.back() = 0;
    const auto nothing = at::empty_symint(shape, grad[0].options());
    const auto no_more = at::empty_symint({shape[0], shape[1], more, 0}, grad[0].options());
    return {call_scores(nothing, nothing, grad[0], no_more, axes, false), {}};
  }
};

at::Tensor scores_autograd(const at::Tensor& x, const at::Tensor& y, const MaybeTensor& bias,
                           const MaybeTensor& more, at::IntArrayRef axes, bool masked) {
  return Scores::apply(x, y, bias, more, axes, masked);
}
at::Tensor sums_autograd(const at::Tensor& attn, const at::Tensor& y, const MaybeTensor& more,
                         at::IntArrayRef axes) {
  return Sums::apply(attn, y, more, axes);
}
TwoTensors key_sums_autograd(const at::Tensor& attn, const at::Tensor& x, at::IntArrayRef axes) {
  const auto result = KeySumsFunction::apply(attn, x, axes);
  return {result[0], result[1]};
}
at::Tensor bias_sums_autograd(const at::Tensor& attn, at::IntArrayRef axes) {
  return BiasSumsFunction::apply(attn, axes);
}

}  // namespace

at::Tensor dispatched_scores(const at::Tensor& query, const at::Tensor& key,
                             const MaybeTensor& bias, const MaybeTensor& more,
                             const std::vector<Axis>& axes) {
  return call_scores(query, key, bias, more, numbers_of(axes), true);
}

at::Tensor dispatched_sums(const at::Tensor& attn, const at::Tensor& value, const MaybeTensor& more,
                           const std::vector<Axis>& axes) {
  return call_sums(attn, value, more, numbers_of(axes));
}

}  // namespace halcyon::neighborhood

namespace {

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  m.def(
      "_neighborhood_scores(Tensor x, Tensor y, Tensor? bias, Tensor? more, int[] axes, "
      "bool masked) -> Tensor");
  m.def("_neighborhood_sums(Tensor attn, Tensor y, Tensor? more, int[] axes) -> Tensor");
  m.def("_neighborhood_key_sums(Tensor attn, Tensor x, int[] axes) -> (Tensor, Tensor)");
  m.def("_neighborhood_bias_sums(Tensor attn, int[] axes) -> Tensor");
}

TORCH_LIBRARY_IMPL(halcyon, CPU, m) {
  m.impl("_neighborhood_scores", TORCH_FN(halcyon::neighborhood::scores));
  m.impl("_neighborhood_sums", TORCH_FN(halcyon::neighborhood::sums));
  m.impl("_neighborhood_key_sums", TORCH_FN(halcyon::neighborhood::key_sums));
  m.impl("_neighborhood_bias_sums", TORCH_FN(halcyon::neighborhood::bias_sums));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_neighborhood_scores", TORCH_FN(halcyon::neighborhood::scores_meta));
  m.impl("_neighborhood_sums", TORCH_FN(halcyon::neighborhood::sums_meta));
  m.impl("_neighborhood_key_sums", TORCH_FN(halcyon::neighborhood::key_sums_meta));
  m.impl("_neighborhood_bias_sums", TORCH_FN(halcyon::neighborhood::bias_sums_meta));
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_neighborhood_scores", TORCH_FN(halcyon::neighborhood::scores_autograd));
  m.impl("_neighborhood_sums", TORCH_FN(halcyon::neighborhood::sums_autograd));
  m.impl("_neighborhood_key_sums", TORCH_FN(halcyon::neighborhood::key_sums_autograd));
  m.impl("_neighborhood_bias_sums", TORCH_FN(halcyon::neighborhood::bias_sums_autograd));
}

}  // namespace
