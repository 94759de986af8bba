// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/neighborhood/operators.h"
#include "halcyon/ops/neighborhood/slots.h"
#include "halcyon/ops/neighborhood/tuned.h"
#include "halcyon/ops/pieces.h"

// The inner operators of torch.ops.halcyon: the two between which autograd stands, and the windows
// written out.
namespace halcyon {
namespace {

using neighborhood::axes_of;
using neighborhood::Backend;
using neighborhood::Gradients;
using neighborhood::Inputs;
using neighborhood::Output;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<at::Tensor>;

Inputs inputs_of(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                 const MaybeTensor& bias, const MaybeTensor& more_keys,
                 const MaybeTensor& more_values, at::IntArrayRef axes, double scale) {
  return {query, key, value, bias, more_keys, more_values, axes_of(axes), scale};
}

Output run_forward(const Inputs& in, Backend backend) {
  Output output;
  if (backend == Backend::reference) {
    each_piece(1, [&](int64_t) { output = neighborhood::reference(in); });
    return output;
  }
  output = backend == Backend::gemm     ? neighborhood::forward_gemm(in)
           : neighborhood::is_plain(in) ? neighborhood::forward_plain(in)
                                        : neighborhood::forward_tuned(in);
  if (in.more_keys) neighborhood::add_more_tokens(in, output);
  return output;
}

Gradients run_backward(const Inputs& in, const Output& output, const at::Tensor& grad_out,
                       const at::Tensor& grad_lse, Backend backend) {
  if (backend == Backend::reference) {
    Gradients grad;
    each_piece(1,
               [&](int64_t) { grad = neighborhood::reference_gradients(in, grad_out, grad_lse); });
    return grad;
  }
  const bool plain = backend == Backend::tiled && neighborhood::is_plain(in);
  if (plain && !in.more_keys) return neighborhood::backward_plain(in, output, grad_out, grad_lse);
  const auto delta = neighborhood::delta_of(output, grad_out, grad_lse);
  auto grad = backend == Backend::gemm
                  ? neighborhood::backward_gemm(in, output.lse, grad_out, delta)
              : plain ? neighborhood::backward_plain(in, output, grad_out, grad_lse)
                      : neighborhood::backward_tuned(in, output.lse, grad_out, delta);
  if (in.more_keys) neighborhood::add_more_gradients(in, output.lse, grad_out, delta, grad);
  return grad;
}

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& query, const at::Tensor& key,
                                           const at::Tensor& value, const MaybeTensor& bias,
                                           const MaybeTensor& more_keys,
                                           const MaybeTensor& more_values, at::IntArrayRef axes,
                                           double scale, int64_t backend) {
  const auto in = inputs_of(query, key, value, bias, more_keys, more_values, axes, scale);
  auto output = run_forward(in, static_cast<Backend>(backend));
  return {output.out, output.lse};
}

std::tuple<at::Tensor, at::Tensor> forward_meta(const at::Tensor& query, const at::Tensor& /*key*/,
                                                const at::Tensor& value, const MaybeTensor& /*b*/,
                                                const MaybeTensor& /*more_keys*/,
                                                const MaybeTensor& /*more_values*/,
                                                at::IntArrayRef /*axes*/, double /*scale*/,
                                                int64_t /*backend*/) {
  auto shape = query.sym_sizes().vec();
  shape.back() = value.sym_size(-1);
  auto out = at::empty_symint(shape, query.options());
  shape.pop_back();
  const auto type = neighborhood::accumulate_type(query);
  return {std::move(out), at::empty_symint(shape, query.options().dtype(type))};
}

// In the order of Gradients; empty where there is no input.
using SixTensors =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

SixTensors backward(const at::Tensor& grad_out, const MaybeTensor& grad_lse,
                    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const MaybeTensor& bias, const MaybeTensor& more_keys,
                    const MaybeTensor& more_values, const at::Tensor& out, const at::Tensor& lse,
                    at::IntArrayRef axes, double scale, int64_t backend) {
  const auto in = inputs_of(query, key, value, bias, more_keys, more_values, axes, scale);
  const auto grad = run_backward(in, {out, lse}, grad_out, grad_lse.value_or(at::Tensor()),
                                 static_cast<Backend>(backend));
  const auto or_empty = [&](const at::Tensor& t) {
    return t.defined() ? t : at::empty({0}, query.options());
  };
  return {grad.query,
          grad.key,
          grad.value,
          or_empty(grad.bias),
          or_empty(grad.more_keys),
          or_empty(grad.more_values)};
}

SixTensors backward_meta(const at::Tensor& /*grad_out*/, const MaybeTensor& /*grad_lse*/,
                         const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                         const MaybeTensor& bias, const MaybeTensor& more_keys,
                         const MaybeTensor& more_values, const at::Tensor& /*out*/,
                         const at::Tensor& /*lse*/, at::IntArrayRef /*axes*/, double /*scale*/,
                         int64_t /*backend*/) {
  const auto like = [&](const MaybeTensor& t) {
    return t ? at::empty_symint(t->sym_sizes(), t->options()) : at::empty({0}, query.options());
  };
  return {like(query), like(key), like(value), like(bias), like(more_keys), like(more_values)};
}

// like: on whose device; and what makes tracers see the call.
std::tuple<at::Tensor, at::Tensor, at::Tensor> slots(const at::Tensor& like, at::IntArrayRef axes) {
  const auto made = neighborhood::make_slots(axes_of(axes));
  const auto device = like.device();
  return {made.key.to(device), made.relative.to(device), made.used.to(device)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> slots_meta(const at::Tensor& like,
                                                          at::IntArrayRef axes) {
  int64_t tokens = 1, window = 1;
  for (const auto& axis : axes_of(axes)) {
    tokens *= axis.length;
    window *= axis.kernel;
  }
  const auto empty = [&](at::ScalarType type) {
    return at::empty({tokens, window}, like.options().dtype(type));
  };
  return {empty(at::kLong), empty(at::kLong), empty(at::kBool)};
}

struct Neighborhood : torch::autograd::Function<Neighborhood> {
  static variable_list forward(AutogradContext* context, const at::Tensor& query,
                               const at::Tensor& key, const at::Tensor& value,
                               const MaybeTensor& bias, const MaybeTensor& more_keys,
                               const MaybeTensor& more_values, at::IntArrayRef axes, double scale,
                               int64_t backend) {
    static const auto op = operator_named<decltype(halcyon::forward)>("halcyon::_neighborhood");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [out, lse] =
        op.call(query, key, value, bias, more_keys, more_values, axes, scale, backend);
    const auto maybe = [](const MaybeTensor& t) { return t.value_or(at::Tensor()); };
    context->save_for_backward(
        {query, key, value, maybe(bias), maybe(more_keys), maybe(more_values), out, lse});
    context->saved_data["axes"] = axes.vec();
    context->saved_data["scale"] = scale;
    context->saved_data["backend"] = backend;
    context->set_materialize_grads(false);
    return {out, lse};
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    check_first_derivative("neighborhood attention");
    static const auto op =
        operator_named<decltype(halcyon::backward)>("halcyon::_neighborhood_backward");
    const auto saved = context->get_saved_variables();
    variable_list result(9);
    if (!grad[0].defined() && !grad[1].defined()) return result;
    const auto maybe = [&](std::size_t i) {
      return saved[i].defined() ? MaybeTensor(saved[i]) : std::nullopt;
    };
    const auto grad_out = grad[0].defined() ? grad[0] : at::zeros_like(saved[6]);
    const auto axes = context->saved_data["axes"].toIntVector();
    const auto [query, key, value, bias, more_keys, more_values] =
        op.call(grad_out, grad[1].defined() ? MaybeTensor(grad[1]) : std::nullopt, saved[0],
                saved[1], saved[2], maybe(3), maybe(4), maybe(5), saved[6], saved[7], axes,
                context->saved_data["scale"].toDouble(), context->saved_data["backend"].toInt());
    const at::Tensor gradients[] = {query, key, value, bias, more_keys, more_values};
    for (std::size_t i = 0; i < 6; ++i) {
      if (saved[i].defined()) result[i] = gradients[i];
    }
    return result;
  }
};

std::tuple<at::Tensor, at::Tensor> forward_autograd(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const MaybeTensor& bias, const MaybeTensor& more_keys, const MaybeTensor& more_values,
    at::IntArrayRef axes, double scale, int64_t backend) {
  const auto result =
      Neighborhood::apply(query, key, value, bias, more_keys, more_values, axes, scale, backend);
  return {result[0], result[1]};
}

}  // namespace

namespace neighborhood {

constexpr std::size_t kAxisNumbers = 6;

std::vector<int64_t> numbers_of(const std::vector<Axis>& axes) {
  std::vector<int64_t> numbers;
  for (const auto& a : axes)
    numbers.insert(numbers.end(), {a.length, a.kernel, a.dilation, a.stride, a.causal, a.periodic});
  return numbers;
}

std::vector<Axis> axes_of(at::IntArrayRef numbers) {
  std::vector<Axis> axes;
  for (std::size_t i = 0; i + kAxisNumbers <= numbers.size(); i += kAxisNumbers) {
    const auto n = numbers.slice(i, kAxisNumbers);
    axes.push_back({n[0], n[1], n[2], n[3], n[4] != 0, n[5] != 0});
  }
  return axes;
}

Output dispatched(const Inputs& in, Backend backend) {
  static const auto op = operator_named<decltype(forward)>("halcyon::_neighborhood");
  auto [out, lse] = op.call(in.query, in.key, in.value, in.bias, in.more_keys, in.more_values,
                            numbers_of(in.axes), in.scale, static_cast<int64_t>(backend));
  return {std::move(out), std::move(lse)};
}

Slots slots_of(const std::vector<Axis>& axes, const at::Tensor& like) {
  static const auto op = operator_named<decltype(slots)>("halcyon::_neighborhood_slots");
  auto [key, relative, used] = op.call(like.detach(), numbers_of(axes));
  return {std::move(key), std::move(relative), std::move(used)};
}

}  // namespace neighborhood

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  m.def("_neighborhood_slots(Tensor like, int[] axes) -> (Tensor, Tensor, Tensor)");
  m.def(
      "_neighborhood(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? more_keys, "
      "Tensor? more_values, int[] axes, float scale, int backend) -> (Tensor, Tensor)");
  m.def(
      "_neighborhood_backward(Tensor grad_out, Tensor? grad_lse, Tensor query, Tensor key, "
      "Tensor value, Tensor? bias, Tensor? more_keys, Tensor? more_values, Tensor out, Tensor lse, "
      "int[] axes, float scale, int backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(halcyon, CompositeExplicitAutograd, m) {
  m.impl("_neighborhood_slots", TORCH_FN(slots));
}

TORCH_LIBRARY_IMPL(halcyon, CPU, m) {
  m.impl("_neighborhood", TORCH_FN(forward));
  m.impl("_neighborhood_backward", TORCH_FN(backward));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_neighborhood_slots", TORCH_FN(slots_meta));
  m.impl("_neighborhood", TORCH_FN(forward_meta));
  m.impl("_neighborhood_backward", TORCH_FN(backward_meta));
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_neighborhood", TORCH_FN(forward_autograd));
}

}  // namespace halcyon
