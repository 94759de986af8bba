// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/attention/attention.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

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

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& qkv, const MaybeTensor& query_weight,
                                           const MaybeTensor& key_weight, double eps, bool causal) {
  auto output =
      attention_detail::forward_cpu(inputs_of(qkv, query_weight, key_weight, eps, causal));
  return {std::move(output.out), std::move(output.lse)};
}

std::tuple<at::Tensor, at::Tensor> forward_meta(const at::Tensor& qkv, const MaybeTensor& /*qw*/,
                                                const MaybeTensor& /*kw*/, double /*eps*/,
                                                bool /*causal*/) {
  const auto type = qkv.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto b = qkv.sym_size(0), n = qkv.sym_size(1), h = qkv.sym_size(3);
  return {at::empty_symint({b, n, h, qkv.sym_size(4)}, qkv.options()),
          at::empty_symint({b, n, h}, qkv.options().dtype(type))};
}

// Of qkv and the weights; empty where there is no weight.
using ThreeTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

at::Tensor like_or_empty(const MaybeTensor& t, const at::Tensor& qkv) {
  return t ? at::empty_symint(t->sym_sizes(), t->options()) : at::empty({0}, qkv.options());
}

ThreeTensors backward(const at::Tensor& grad_out, const at::Tensor& qkv,
                      const MaybeTensor& query_weight, const MaybeTensor& key_weight,
                      const at::Tensor& out, const at::Tensor& lse, double eps, bool causal) {
  const auto in = inputs_of(qkv, query_weight, key_weight, eps, causal);
  const auto grad = at::empty(qkv.sizes(), qkv.options());
  const auto like = [](const at::Tensor& t) {
    return t.defined() ? at::empty(t.sizes(), t.options()) : t;
  };
  const attention_detail::Gradients into{grad.select(2, 0), grad.select(2, 1), grad.select(2, 2),
                                         like(in.query_weight), like(in.key_weight)};
  attention_detail::backward_cpu(in, {out, lse}, grad_out, {}, into);
  const auto or_empty = [&](const at::Tensor& t) {
    return t.defined() ? t : at::empty({0}, qkv.options());
  };
  return {grad, or_empty(into.query_weight), or_empty(into.key_weight)};
}

ThreeTensors backward_meta(const at::Tensor& /*grad_out*/, const at::Tensor& qkv,
                           const MaybeTensor& query_weight, const MaybeTensor& key_weight,
                           const at::Tensor& /*out*/, const at::Tensor& /*lse*/, double /*eps*/,
                           bool /*causal*/) {
  return {at::empty_symint(qkv.sym_sizes(), qkv.options()), like_or_empty(query_weight, qkv),
          like_or_empty(key_weight, qkv)};
}

struct SelfAttentionFunction : torch::autograd::Function<SelfAttentionFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& qkv,
                               const MaybeTensor& query_weight, const MaybeTensor& key_weight,
                               double eps, bool causal) {
    static const auto op = operator_named<decltype(halcyon::forward)>("halcyon::_self_attention");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [out, lse] = op.call(qkv, query_weight, key_weight, eps, causal);
    context->save_for_backward(
        {qkv, query_weight.value_or(at::Tensor()), key_weight.value_or(at::Tensor()), out, lse});
    context->saved_data["eps"] = eps;
    context->saved_data["causal"] = causal;
    context->mark_non_differentiable({lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* context, variable_list grad_out) {
    check_first_derivative(kName);
    static const auto op =
        operator_named<decltype(halcyon::backward)>("halcyon::_self_attention_backward");
    const auto saved = context->get_saved_variables();
    const auto &query_weight = saved[1], &key_weight = saved[2];
    auto [grad, of_query, of_key] = op.call(
        grad_out[0], saved[0], if_defined(query_weight), if_defined(key_weight), saved[3], saved[4],
        context->saved_data["eps"].toDouble(), context->saved_data["causal"].toBool());
    return {grad,
            query_weight.defined() ? of_query : at::Tensor(),
            key_weight.defined() ? of_key : at::Tensor(),
            {},
            {}};
  }
};

std::tuple<at::Tensor, at::Tensor> autograd(const at::Tensor& qkv, const MaybeTensor& query_weight,
                                            const MaybeTensor& key_weight, double eps,
                                            bool causal) {
  const auto result = SelfAttentionFunction::apply(qkv, query_weight, key_weight, eps, causal);
  return {result[0], result[1]};
}

at::Tensor normalised(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return rms_norm(x, if_defined(weight), eps);
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
  HALCYON_CHECK(qkv.sym_size(2) == 3, kName, "expected qkv of shape (B, N, 3, H, d), got {}",
                describe(qkv));
  if (norm) {
    HALCYON_CHECK(norm->eps >= 0, kName, "expected an eps of 0 or more, got {}", norm->eps);
    for (const auto& [weight, name] : {std::pair(norm->query_weight, "query_weight"),
                                       std::pair(norm->key_weight, "key_weight")}) {
      if (!weight.defined()) continue;
      check_floating(weight, 1, kName, name);
      HALCYON_CHECK(weight.sym_size(0) == qkv.sym_size(4), kName,
                    "expected {} of {} elements, got {}", name,
                    qkv.sym_size(4).guard_int(__FILE__, __LINE__), describe(weight));
      check_device(weight, qkv, kName, name);
    }
  }
  const auto type = cpu_result_type({qkv});
  if (!qkv.is_cpu() || qkv.sym_numel() == 0 || !has_kernel(*type) ||
      needs_composition({qkv, norm ? norm->query_weight : at::Tensor(),
                         norm ? norm->key_weight : at::Tensor()})) {
    auto q = qkv.select(2, 0), k = qkv.select(2, 1);
    if (norm) {
      q = normalised(q, norm->query_weight, norm->eps);
      k = normalised(k, norm->key_weight, norm->eps);
    }
    return attention_by_operators(q, k, qkv.select(2, 2), {}, 0, causal);
  }
  const auto weight = [&](const at::Tensor& t) {
    return norm ? MaybeTensor(
                      t.defined() ? t : at::ones_symint({qkv.sym_size(4)}, at::dtype(at::kFloat)))
                : MaybeTensor();
  };
  static const auto op = operator_named<decltype(forward)>("halcyon::_self_attention");
  return std::get<0>(op.call(qkv.to(*type), weight(norm ? norm->query_weight : at::Tensor()),
                             weight(norm ? norm->key_weight : at::Tensor()), norm ? norm->eps : 0,
                             causal));
}

namespace {

at::Tensor public_self_attention(const at::Tensor& qkv, const MaybeTensor& query_weight,
                                 const MaybeTensor& key_weight, std::optional<double> eps,
                                 bool causal) {
  std::optional<QkNorm> norm;
  if (eps) norm = {query_weight.value_or(at::Tensor()), key_weight.value_or(at::Tensor()), *eps};
  HALCYON_CHECK(eps || !(query_weight || key_weight), kName,
                "expected an eps with query_weight and key_weight, got none");
  return self_attention(qkv, norm, causal);
}

at::Tensor public_by_operators(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const MaybeTensor& mask, double dropout, bool causal) {
  return attention_by_operators(q, k, v, mask.value_or(at::Tensor()), dropout, causal);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  const auto composite = c10::DispatchKey::CompositeImplicitAutograd;
  m.def(
      "self_attention(Tensor qkv, Tensor? query_weight=None, Tensor? key_weight=None, "
      "float? eps=None, bool causal=False) -> Tensor",
      torch::dispatch(composite, TORCH_FN(public_self_attention)));
  m.def(
      "masked_attention(Tensor q, Tensor k, Tensor v, Tensor? mask=None, float dropout=0.0, "
      "bool causal=False) -> Tensor",
      torch::dispatch(composite, TORCH_FN(public_by_operators)));
  m.def(
      "_self_attention(Tensor qkv, Tensor? query_weight, Tensor? key_weight, float eps, "
      "bool causal) -> (Tensor, Tensor)");
  m.def(
      "_self_attention_backward(Tensor grad_out, Tensor qkv, Tensor? query_weight, "
      "Tensor? key_weight, Tensor out, Tensor lse, float eps, bool causal) -> "
      "(Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(halcyon, CPU, m) {
  m.impl("_self_attention", TORCH_FN(forward));
  m.impl("_self_attention_backward", TORCH_FN(backward));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_self_attention", TORCH_FN(forward_meta));
  m.impl("_self_attention_backward", TORCH_FN(backward_meta));
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_self_attention", TORCH_FN(autograd));
}

}  // namespace halcyon
