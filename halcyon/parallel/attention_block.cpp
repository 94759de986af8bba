// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/attention_block.h"

#include <ATen/ATen.h>

#include <limits>

#include "halcyon/ops/attention/backends.h"
#include "halcyon/ops/hidden.h"

namespace halcyon::parallel {
namespace {

// Heads last, as the kernels have them.
at::Tensor turned(const at::Tensor& t) {
  return t.transpose(1, 2);
}

attention_detail::Inputs inputs_of(const at::Tensor& query, const at::Tensor& key,
                                   const at::Tensor& value, double scale, bool causal) {
  const auto dense_channels = [](const at::Tensor& t) {
    return turned(t.stride(-1) == 1 ? t : t.contiguous());
  };
  return {dense_channels(query), dense_channels(key), dense_channels(value), scale, causal};
}

bool has_kernel(const at::Tensor& query, const at::Tensor& value) {
  return query.is_cpu() && query.size(-1) == value.size(-1);
}

// (B, G, H / G, S, c) of (B, H, S, c).
at::Tensor grouped(const at::Tensor& t, int64_t groups) {
  return t.unflatten(1, {groups, t.size(1) / groups});
}

// Whether keys 0, 1, ... are hidden from queries first_query, first_query + 1, ...; undefined where
// none is.
at::Tensor hidden_of(const at::Tensor& query, const at::Tensor& key, bool causal,
                     int64_t first_query) {
  if (!causal) return {};
  return at::ones({query.size(-2), key.size(-2)}, query.options().dtype(at::kBool))
      .tril(first_query)
      .logical_not();
}

// a b^T, and `fill` where hidden.
at::Tensor products_of(const at::Tensor& a, const at::Tensor& b, const at::Tensor& hidden,
                       double fill) {
  return hidden.defined() ? seen_scores(a, b, hidden, fill) : at::matmul(a, b.transpose(-1, -2));
}

at::Tensor scores_of(const at::Tensor& query, const at::Tensor& key, double scale,
                     const at::Tensor& hidden) {
  return products_of(query * scale, key, hidden, -std::numeric_limits<double>::infinity());
}

at::Tensor sums_of(const at::Tensor& weights, const at::Tensor& rows, const at::Tensor& hidden) {
  return hidden.defined() ? seen_sums(weights, rows, hidden) : at::matmul(weights, rows);
}

// With p the weights and dp = grad_out . v, the gradient of the scores is p (dp - delta).
BlockGradients gradients_of(const at::Tensor& query, const at::Tensor& key, const at::Tensor& p,
                            const at::Tensor& dp, const at::Tensor& delta,
                            const at::Tensor& grad_out, double scale, const at::Tensor& hidden) {
  const auto ds = p * (dp - delta) * scale;
  const auto from_key = hidden.defined() ? hidden.t() : hidden;
  const auto of_keys = [&](const at::Tensor& w, const at::Tensor& rows) {
    return sums_of(w.transpose(-1, -2), rows, from_key).sum(2);
  };
  return {sums_of(ds, key, hidden).flatten(1, 2), of_keys(ds, query), of_keys(p, grad_out)};
}

}  // namespace

BlockOutput attend_block(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                         double scale, bool causal) {
  const auto in = inputs_of(query, key, value, scale, causal);
  const auto output =
      has_kernel(query, value) ? attention_detail::forward_cpu(in) : attention_detail::composed(in);
  return {turned(output.out), turned(output.lse)};
}

void merge(BlockOutput& into, const BlockOutput& block) {
  if (!into.out.defined()) {
    into = block;
    return;
  }
  const auto lse = at::logaddexp(into.lse, block.lse);
  const auto share = [&](const at::Tensor& of) { return (of - lse).exp_().unsqueeze(-1); };
  into.out.mul_(share(into.lse)).addcmul_(block.out, share(block.lse));
  into.lse = lse;
}

BlockGradients block_gradients(const at::Tensor& query, const at::Tensor& key,
                               const at::Tensor& value, const BlockOutput& output,
                               const at::Tensor& grad_out, double scale, bool causal) {
  if (has_kernel(query, value)) {
    const auto in = inputs_of(query, key, value, scale, causal);
    const auto like = [](const at::Tensor& t) { return at::empty(t.sizes(), t.options()); };
    const attention_detail::Gradients into{like(in.query), like(in.key), like(in.value), {}, {}};
    attention_detail::backward_cpu(
        in, {turned(output.out).contiguous(), turned(output.lse).contiguous()},
        turned(grad_out).contiguous(), {}, into);
    return {turned(into.query), turned(into.key), turned(into.value)};
  }
  const auto groups = key.size(1);
  const auto q = grouped(query, groups), grad = grouped(grad_out, groups);
  const auto k = key.unsqueeze(2), v = value.unsqueeze(2);
  const auto lse = grouped(output.lse.unsqueeze(-1), groups);
  const auto delta = grouped((output.out * grad_out).sum(-1, true), groups);
  const auto hidden = hidden_of(q, k, causal, 0);
  const auto p = (scores_of(q, k, scale, hidden) - lse).exp();
  return gradients_of(q, k, p, products_of(grad, v, hidden, 0), delta, grad, scale, hidden);
}

BlockGradients gradients_by_operators(const at::Tensor& query, const at::Tensor& key,
                                      const at::Tensor& value, const at::Tensor& grad_out,
                                      double scale, bool causal, int64_t first_query) {
  const auto groups = key.size(1);
  const auto q = grouped(query, groups), grad = grouped(grad_out, groups);
  const auto k = key.unsqueeze(2), v = value.unsqueeze(2);
  const auto hidden = hidden_of(q, k, causal, first_query);
  const auto p = at::softmax(scores_of(q, k, scale, hidden), -1);
  const auto dp = products_of(grad, v, hidden, 0);
  return gradients_of(q, k, p, dp, (dp * p).sum(-1, true), grad, scale, hidden);
}

}  // namespace halcyon::parallel
