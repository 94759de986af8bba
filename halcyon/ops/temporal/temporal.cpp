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

struct TemporalAttention : torch::autograd::Function<TemporalAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, bool linear, bool causal,
                            std::optional<int64_t> window, const MaybeTensor& cos,
                            const MaybeTensor& sin) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({q, k, v, cos.value_or(at::Tensor()), sin.value_or(at::Tensor())});
    context->saved_data["linear"] = linear;
    context->saved_data["causal"] = causal;
    context->saved_data["window"] = window.value_or(0);
    return temporal_detail::forward_cpu({q, k, v, linear, causal, window, cos, sin});
  }

  static variable_list backward(AutogradContext* context, variable_list grad_out) {
    check_first_derivative("temporal_attention");
    const auto saved = context->get_saved_variables();
    const auto window = context->saved_data["window"].toInt();
    Inputs in{saved[0],
              saved[1],
              saved[2],
              context->saved_data["linear"].toBool(),
              context->saved_data["causal"].toBool(),
              window > 0 ? std::optional(window) : std::nullopt,
              {},
              {}};
    if (saved[3].defined()) {
      in.cos = saved[3];
      in.sin = saved[4];
    }
    const auto grad = temporal_detail::backward_cpu(in, grad_out[0]);
    return {grad.q, grad.k, grad.v, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor temporal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              bool linear, bool causal, std::optional<int64_t> window,
                              const MaybeTensor& rope_cos, const MaybeTensor& rope_sin) {
  constexpr auto kName = "temporal_attention";
  check_floating(q, 5, kName, "q");
  for (const auto* t : {&k, &v}) {
    check_floating(*t, 5, kName, "k and v");
    HALCYON_CHECK(t->sizes() == q.sizes() && t->scalar_type() == q.scalar_type(), kName,
                  "expected k and v like q {}, got {}", describe(q), describe(*t));
    check_device(*t, q, kName, "k and v");
  }
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
  if (q.is_cpu() && q.numel() > 0)
    return TemporalAttention::apply(q, k, v, linear, causal, window, rope_cos, rope_sin);
  return temporal_detail::composed({q, k, v, linear, causal, window, rope_cos, rope_sin});
}

}  // namespace halcyon
