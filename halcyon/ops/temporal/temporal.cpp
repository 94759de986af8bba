// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/temporal/temporal.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/temporal/backends.h"

namespace halcyon {
namespace {

using temporal_detail::Inputs;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<at::Tensor>;

Inputs inputs_of(const at::Tensor& qkv, bool linear, bool causal, std::optional<int64_t> window,
                 const MaybeTensor& cos, const MaybeTensor& sin) {
  return {qkv.select(3, 0), qkv.select(3, 1), qkv.select(3, 2), linear, causal, window, cos, sin};
}

// What the backward needs beside the operands.
void save(AutogradContext* context, const Inputs& in, variable_list operands) {
  operands.push_back(in.cos.value_or(at::Tensor()));
  operands.push_back(in.sin.value_or(at::Tensor()));
  context->save_for_backward(std::move(operands));
  context->saved_data["linear"] = in.linear;
  context->saved_data["causal"] = in.causal;
  context->saved_data["window"] = in.window.value_or(0);
}

// Of q, k and v, and the tables where there are any.
Inputs saved_inputs(AutogradContext* context, at::TensorList qkv, at::TensorList tables) {
  const auto window = context->saved_data["window"].toInt();
  Inputs in{qkv[0],
            qkv[1],
            qkv[2],
            context->saved_data["linear"].toBool(),
            context->saved_data["causal"].toBool(),
            window > 0 ? std::optional(window) : std::nullopt,
            {},
            {}};
  if (tables[0].defined()) {
    in.cos = tables[0];
    in.sin = tables[1];
  }
  return in;
}

struct TemporalAttention : torch::autograd::Function<TemporalAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, bool linear, bool causal,
                            std::optional<int64_t> window, const MaybeTensor& cos,
                            const MaybeTensor& sin) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Inputs in{q, k, v, linear, causal, window, cos, sin};
    save(context, in, {q, k, v});
    return temporal_detail::forward_cpu(in);
  }

  static variable_list backward(AutogradContext* context, variable_list grad_out) {
    check_first_derivative("temporal_attention");
    const auto saved = context->get_saved_variables();
    const at::TensorList all(saved);
    const auto grad = temporal_detail::backward_cpu(
        saved_inputs(context, all.slice(0, 3), all.slice(3)), grad_out[0]);
    return {grad.q, grad.k, grad.v, {}, {}, {}, {}, {}};
  }
};

at::Tensor forward(const at::Tensor& qkv, bool linear, bool causal, std::optional<int64_t> window,
                   const MaybeTensor& cos, const MaybeTensor& sin) {
  return temporal_detail::forward_cpu(inputs_of(qkv, linear, causal, window, cos, sin));
}

at::Tensor forward_meta(const at::Tensor& qkv, bool /*linear*/, bool /*causal*/,
                        std::optional<int64_t> /*window*/, const MaybeTensor& /*cos*/,
                        const MaybeTensor& /*sin*/) {
  auto sizes = qkv.sym_sizes().vec();
  sizes.erase(sizes.begin() + 3);
  return at::empty_symint(sizes, qkv.options());
}

at::Tensor backward(const at::Tensor& grad_out, const at::Tensor& qkv, bool linear, bool causal,
                    std::optional<int64_t> window, const MaybeTensor& cos, const MaybeTensor& sin) {
  return temporal_detail::backward_cpu(inputs_of(qkv, linear, causal, window, cos, sin), grad_out)
      .joint;
}

at::Tensor backward_meta(const at::Tensor& /*grad_out*/, const at::Tensor& qkv, bool /*linear*/,
                         bool /*causal*/, std::optional<int64_t> /*window*/,
                         const MaybeTensor& /*cos*/, const MaybeTensor& /*sin*/) {
  return at::empty_symint(qkv.sym_sizes(), qkv.options());
}

struct JointTemporalAttention : torch::autograd::Function<JointTemporalAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv, bool linear,
                            bool causal, std::optional<int64_t> window, const MaybeTensor& cos,
                            const MaybeTensor& sin) {
    static const auto op =
        operator_named<decltype(halcyon::forward)>("halcyon::_temporal_attention");
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({qkv, cos.value_or(at::Tensor()), sin.value_or(at::Tensor())});
    context->saved_data["linear"] = linear;
    context->saved_data["causal"] = causal;
    context->saved_data["window"] = window.value_or(0);
    return op.call(qkv, linear, causal, window, cos, sin);
  }

  static variable_list backward(AutogradContext* context, variable_list grad_out) {
    check_first_derivative("temporal_attention");
    static const auto op =
        operator_named<decltype(halcyon::backward)>("halcyon::_temporal_attention_backward");
    const auto saved = context->get_saved_variables();
    const auto window = context->saved_data["window"].toInt();
    return {op.call(grad_out[0], saved[0], context->saved_data["linear"].toBool(),
                    context->saved_data["causal"].toBool(),
                    window > 0 ? std::optional(window) : std::nullopt, if_defined(saved[1]),
                    if_defined(saved[2])),
            {},
            {},
            {},
            {},
            {}};
  }
};

at::Tensor autograd(const at::Tensor& qkv, bool linear, bool causal, std::optional<int64_t> window,
                    const MaybeTensor& cos, const MaybeTensor& sin) {
  return JointTemporalAttention::apply(qkv, linear, causal, window, cos, sin);
}

constexpr auto kName = "temporal_attention";

// The options, for q (B, T, X, H, d).
void check_options(const at::Tensor& q, bool causal, std::optional<int64_t> window,
                   const MaybeTensor& rope_cos, const MaybeTensor& rope_sin) {
  HALCYON_CHECK(q.sym_size(4) > 0, kName, "expected a head width of 1 or more, got 0");
  HALCYON_CHECK(!window || causal, kName,
                "expected a window only with causal attention, got one without");
  HALCYON_CHECK(!window || *window >= 1, kName, "expected window >= 1, got {}", *window);
  HALCYON_CHECK(rope_cos.has_value() == rope_sin.has_value(), kName,
                "expected rope_cos and rope_sin together, got one of them");
  if (rope_cos) {
    HALCYON_CHECK(q.sym_size(4) % 2 == 0, kName, "expected an even head width with rope, got {}",
                  q.sym_size(4).guard_int(__FILE__, __LINE__));
    for (const auto* table : {&*rope_cos, &*rope_sin}) {
      check_floating(*table, 2, kName, "a rope table");
      check_shape(*table, {q.sym_size(1), q.sym_size(4)}, kName, "rope tables");
      check_device(*table, q, kName, "the rope tables");
    }
  }
}

}  // namespace

at::Tensor temporal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              bool linear, bool causal, std::optional<int64_t> window,
                              const MaybeTensor& rope_cos, const MaybeTensor& rope_sin) {
  check_floating(q, 5, kName, "q");
  for (const auto* t : {&k, &v}) {
    check_floating(*t, 5, kName, "k and v");
    HALCYON_CHECK(t->sym_sizes() == q.sym_sizes() && t->scalar_type() == q.scalar_type(), kName,
                  "expected k and v like q {}, got {}", describe(q), describe(*t));
    check_device(*t, q, kName, "k and v");
  }
  check_options(q, causal, window, rope_cos, rope_sin);
  if (q.is_cpu() && q.sym_numel() > 0 && !needs_composition({q, k, v, rope_cos, rope_sin}))
    return TemporalAttention::apply(q, k, v, linear, causal, window, rope_cos, rope_sin);
  return temporal_detail::composed({q, k, v, linear, causal, window, rope_cos, rope_sin});
}

at::Tensor temporal_attention(const at::Tensor& qkv, bool linear, bool causal,
                              std::optional<int64_t> window, const MaybeTensor& rope_cos,
                              const MaybeTensor& rope_sin) {
  check_floating(qkv, 6, kName, "qkv");
  HALCYON_CHECK(qkv.sym_size(3) == 3, kName, "expected qkv (B, T, X, 3, H, d), got {}",
                describe(qkv));
  check_options(qkv.select(3, 0), causal, window, rope_cos, rope_sin);
  if (qkv.is_cpu() && qkv.sym_numel() > 0 && !needs_composition({qkv, rope_cos, rope_sin})) {
    static const auto op = operator_named<decltype(forward)>("halcyon::_temporal_attention");
    return op.call(qkv, linear, causal, window, rope_cos, rope_sin);
  }
  return temporal_detail::composed(inputs_of(qkv, linear, causal, window, rope_cos, rope_sin));
}

namespace {

at::Tensor public_temporal_attention(const at::Tensor& qkv, bool linear, bool causal,
                                     std::optional<int64_t> window, const MaybeTensor& rope_cos,
                                     const MaybeTensor& rope_sin) {
  return temporal_attention(qkv, linear, causal, window, rope_cos, rope_sin);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  const auto composite = c10::DispatchKey::CompositeImplicitAutograd;
  m.def(
      "temporal_attention(Tensor qkv, bool linear=True, bool causal=False, int? window=None, "
      "Tensor? rope_cos=None, Tensor? rope_sin=None) -> Tensor",
      torch::dispatch(composite, TORCH_FN(public_temporal_attention)));
  m.def("mask_causal(Tensor attn, bool linear=True, int? window=None) -> Tensor",
        torch::dispatch(composite, TORCH_FN(mask_causal)));
  m.def(
      "_temporal_attention(Tensor qkv, bool linear, bool causal, int? window, Tensor? rope_cos, "
      "Tensor? rope_sin) -> Tensor");
  m.def(
      "_temporal_attention_backward(Tensor grad_out, Tensor qkv, bool linear, bool causal, "
      "int? window, Tensor? rope_cos, Tensor? rope_sin) -> Tensor");
}

TORCH_LIBRARY_IMPL(halcyon, CPU, m) {
  m.impl("_temporal_attention", TORCH_FN(forward));
  m.impl("_temporal_attention_backward", TORCH_FN(backward));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_temporal_attention", TORCH_FN(forward_meta));
  m.impl("_temporal_attention_backward", TORCH_FN(backward_meta));
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_temporal_attention", TORCH_FN(autograd));
}

}  // namespace halcyon
