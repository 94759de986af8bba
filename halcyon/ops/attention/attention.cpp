// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/attention/attention.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "halcyon/ops/attention/backends.h"
#include "halcyon/ops/checks.h"
#include "halcyon/ops/cpu_bf16.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/hidden.h"
#include "halcyon/ops/rms_norm.h"

namespace halcyon {
namespace {

using attention_detail::Inputs;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<at::Tensor>;

constexpr const char* kName = "self_attention";

Inputs inputs_of(const at::Tensor& qkv, const MaybeTensor& query_weight,
                 const MaybeTensor& key_weight, double eps, bool causal) {
  return {qkv.select(2, 0),
          qkv.select(2, 1),
          qkv.select(2, 2),
          1 / std::sqrt(static_cast<double>(qkv.size(4))),
          causal,
          query_weight.value_or(at::Tensor()),
          key_weight.value_or(at::Tensor()),
          eps};
}

struct SelfAttentionFunction : torch::autograd::Function<SelfAttentionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv,
                            const MaybeTensor& query_weight, const MaybeTensor& key_weight,
                            double eps, bool causal) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto in = inputs_of(qkv, query_weight, key_weight, eps, causal);
    const auto output = attention_detail::forward_cpu(in);
    context->save_for_backward({qkv, in.query_weight, in.key_weight, output.out, output.lse});
    context->saved_data["eps"] = eps;
    context->saved_data["causal"] = causal;
    return output.out;
  }

  static variable_list backward(AutogradContext* context, variable_list grad_out) {
    check_first_derivative(kName);
    const auto saved = context->get_saved_variables();
    const auto &qkv = saved[0], &query_weight = saved[1], &key_weight = saved[2];
    const auto in = inputs_of(qkv, query_weight, key_weight, context->saved_data["eps"].toDouble(),
                              context->saved_data["causal"].toBool());
    const auto grad = at::empty(qkv.sizes(), qkv.options());
    const auto like = [](const at::Tensor& t) {
      return t.defined() ? at::empty(t.sizes(), t.options()) : t;
    };
    const attention_detail::Gradients into{grad.select(2, 0), grad.select(2, 1), grad.select(2, 2),
                                           like(query_weight), like(key_weight)};
    attention_detail::backward_cpu(in, {saved[3], saved[4]}, grad_out[0], {}, into);
    return {grad, into.query_weight, into.key_weight, {}, {}};
  }
};

at::Tensor normalised(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return rms_norm(x, weight.defined() ? MaybeTensor(weight) : std::nullopt, eps);
}

// AMX is ahead of the kernels in bfloat16, and nothing has been written for half.
bool has_kernel(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble ||
         (type == at::kBFloat16 && (attention_detail::has_pairs() || !has_fast_bf16()));
}

}  // namespace

at::Tensor attention_by_operators(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const at::Tensor& mask, double dropout, bool causal) {
  if (is_bf16_for_float({q, k, v})) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const auto wide = [](const at::Tensor& t) { return t.to(at::kFloat); };
    return attention_by_operators(wide(q), wide(k), wide(v), mask, dropout, causal)
        .to(at::kBFloat16);
  }
  const auto given = mask.defined() && mask.is_floating_point() ? mask.to(q.scalar_type()) : mask;
  const auto heads = [](const at::Tensor& t) { return t.transpose(1, 2); };
  return heads(seen_attention(heads(q), heads(k), heads(v), given, dropout, causal));
}

at::Tensor self_attention(const at::Tensor& qkv, const std::optional<QkNorm>& norm, bool causal) {
  check_floating(qkv, 5, kName, "qkv");
  HALCYON_CHECK(qkv.size(2) == 3, kName, "expected qkv of shape (B, N, 3, H, d), got {}",
                describe(qkv));
  if (norm) {
    HALCYON_CHECK(norm->eps >= 0, kName, "expected an eps of 0 or more, got {}", norm->eps);
    for (const auto& [weight, name] : {std::pair(norm->query_weight, "query_weight"),
                                       std::pair(norm->key_weight, "key_weight")}) {
      if (!weight.defined()) continue;
      check_floating(weight, 1, kName, name);
      HALCYON_CHECK(weight.size(0) == qkv.size(4), kName, "expected {} of {} elements, got {}",
                    name, qkv.size(4), describe(weight));
      check_device(weight, qkv, kName, name);
    }
  }
  const auto type = cpu_result_type({qkv});
  if (!qkv.is_cpu() || qkv.numel() == 0 || has_tangent(qkv) || !has_kernel(*type)) {
    auto q = qkv.select(2, 0), k = qkv.select(2, 1);
    if (norm) {
      q = normalised(q, norm->query_weight, norm->eps);
      k = normalised(k, norm->key_weight, norm->eps);
    }
    return attention_by_operators(q, k, qkv.select(2, 2), {}, 0, causal);
  }
  const auto weight = [&](const at::Tensor& t) {
    return norm ? MaybeTensor(t.defined() ? t : at::ones({qkv.size(4)}, at::dtype(at::kFloat)))
                : MaybeTensor();
  };
  return SelfAttentionFunction::apply(
      qkv.to(*type), weight(norm ? norm->query_weight : at::Tensor()),
      weight(norm ? norm->key_weight : at::Tensor()), norm ? norm->eps : 0, causal);
}

}  // namespace halcyon
