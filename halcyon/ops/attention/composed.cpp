// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <limits>

#include "halcyon/ops/attention/backends.h"
#include "halcyon/ops/hidden.h"

namespace halcyon::attention_detail {
namespace {

// (B, N, H, d) normalised by its root mean square.
at::Tensor normalised(const at::Tensor& t, const at::Tensor& weight, double eps) {
  if (!weight.defined()) return t;
  return t * at::rsqrt(t.square().mean(-1, true) + eps) * weight.to(t.scalar_type());
}

}  // namespace

Output composed(const Inputs& in) {
  const auto type = in.accumulate();
  const int64_t groups = in.key.size(2);
  const auto grouped = [&](const at::Tensor& t) {  // (B, G, H / G, N, d)
    return t.unflatten(2, {groups, -1}).permute({0, 2, 3, 1, 4});
  };
  const auto query = normalised(in.query.to(type), in.query_weight, in.eps),
             key = normalised(in.key.to(type), in.key_weight, in.eps);
  const auto q = grouped(query) * in.scale, k = grouped(key), v = grouped(in.value.to(type));
  at::Tensor hidden;
  if (in.causal)
    hidden = at::ones({query.size(1), key.size(1)}, query.options().dtype(at::kBool))
                 .tril()
                 .logical_not();
  const auto scores = in.causal
                          ? seen_scores(q, k, hidden, -std::numeric_limits<double>::infinity())
                          : at::matmul(q, k.transpose(-1, -2));
  const auto lse = at::logsumexp(scores, -1, true);
  const auto weights = (scores - lse).exp();
  const auto tokens = [](const at::Tensor& t) { return t.permute({0, 3, 1, 2, 4}).flatten(2, 3); };
  const auto out = in.causal ? seen_sums(weights, v, hidden) : at::matmul(weights, v);
  return {tokens(out).to(in.query.scalar_type()), tokens(lse).squeeze(-1)};
}

}  // namespace halcyon::attention_detail
