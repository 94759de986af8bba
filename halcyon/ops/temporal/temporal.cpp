// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/temporal/temporal.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "halcyon/ops/checks.h"
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

struct JointTemporalAttention : torch::autograd::Function<JointTemporalAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv, bool linear,
                            bool causal, std::optional<int64_t> window, const MaybeTensor& cos,
                            const MaybeTensor& sin) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto in = inputs_of(qkv, linear, causal, window, cos, sin);
    save(context, in, {qkv});
    return temporal_detail::forward_cpu(in);
  }

  static variable_list backward(AutogradContext* context, variable_list grad_out) {
    check_first_derivative("temporal_attention");
    const auto saved = context->get_saved_variables();
    const auto grad = temporal_detail::backward_cpu(
        saved_inputs(context, saved[0].unbind(3), at::TensorList(saved).slice(1)), grad_out[0]);
    return {grad.joint, {}, {}, {}, {}, {}};
  }
};

constexpr auto kName = "temporal_attention";

// The options, for q (B, T, X, H, d).
void check_options(const at::Tensor& q, bool causal, std::optional<int64_t> window,
                   const MaybeTensor& rope_cos, const MaybeTensor& rope_sin) {
  HALCYON_CHECK(q.size(4) > 0, kName, "expected a head width of 1 or more, got 0");
  HALCYON_CHECK(!window || causal, kName,
                "expected a window only with causal attention, got one without");
  HALCYON_CHECK(!window || *window >= 1, kName, "expected window >= 1, got {}", *window);
  HALCYON_CHECK(rope_cos.has_value() == rope_sin.has_value(), kName,
                "expected rope_cos and rope_sin together, got one of them");
  if (rope_cos) {
    HALCYON_CHECK(q.size(4) % 2 == 0, kName, "expected an even head width with rope, got {}",
                  q.size(4));
    for (const auto* table : {&*rope_cos, &*rope_sin}) {
      check_floating(*table, 2, kName, "a rope table");
      HALCYON_CHECK(table->size(0) == q.size(1) && table->size(1) == q.size(4), kName,
                    "expected rope tables of shape ({}, {}), got {}", q.size(1), q.size(4),
                    describe(*table));
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
    HALCYON_CHECK(t->sizes() == q.sizes() && t->scalar_type() == q.scalar_type(), kName,
                  "expected k and v like q {}, got {}", describe(q), describe(*t));
    check_device(*t, q, kName, "k and v");
  }
  check_options(q, causal, window, rope_cos, rope_sin);
  if (q.is_cpu() && q.numel() > 0)
    return TemporalAttention::apply(q, k, v, linear, causal, window, rope_cos, rope_sin);
  return temporal_detail::composed({q, k, v, linear, causal, window, rope_cos, rope_sin});
}

at::Tensor temporal_attention(const at::Tensor& qkv, bool linear, bool causal,
                              std::optional<int64_t> window, const MaybeTensor& rope_cos,
                              const MaybeTensor& rope_sin) {
  check_floating(qkv, 6, kName, "qkv");
  HALCYON_CHECK(qkv.size(3) == 3, kName, "expected qkv (B, T, X, 3, H, d), got {}", describe(qkv));
  check_options(qkv.select(3, 0), causal, window, rope_cos, rope_sin);
  if (qkv.is_cpu() && qkv.numel() > 0)
    return JointTemporalAttention::apply(qkv, linear, causal, window, rope_cos, rope_sin);
  return temporal_detail::composed(inputs_of(qkv, linear, causal, window, rope_cos, rope_sin));
}

}  // namespace halcyon
