// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/hidden.h"

#include <ATen/ATen.h>

#include <limits>

#include "halcyon/ops/finite.h"

namespace halcyon {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

at::Tensor is_bad(const at::Tensor& t) {
  return t.detach().isfinite().logical_not();
}

// Of each query whether it sees a marked number: (.., N, M) and (.., M, c) -> (.., N, c).
at::Tensor sees(const at::Tensor& hidden, const at::Tensor& marked) {
  const auto numbers = [](const at::Tensor& t) { return t.to(at::kFloat); };
  return at::matmul(numbers(hidden.logical_not()), numbers(marked)) > 0;
}

}  // namespace

at::Tensor seen_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& hidden,
                       double fill) {
  const auto bad_q = is_bad(q), bad_k = is_bad(k);
  const auto bad = bad_q.any(-1, true).logical_or(bad_k.any(-1, true).transpose(-1, -2));
  return at::matmul(q.masked_fill(bad_q, 0), k.masked_fill(bad_k, 0).transpose(-1, -2))
      .masked_fill(bad, kNan)
      .masked_fill(hidden, fill);
}

at::Tensor seen_sums(const at::Tensor& weights, const at::Tensor& v, const at::Tensor& hidden) {
  const auto bad = is_bad(v);
  const auto sums = at::matmul(weights.masked_fill(hidden, 0), v.masked_fill(bad, 0));
  return sums.masked_fill(sees(hidden, bad).logical_or(sums.detach().isnan()), kNan);
}

at::Tensor seen_matmul(const at::Tensor& weights, const at::Tensor& rows, const at::Tensor& hidden,
                       bool finite) {
  if (finite) return at::matmul(weights, rows);
  const auto bad = is_bad(rows);
  if (is_readable(bad) && !bad.any().item<bool>()) return at::matmul(weights, rows);
  auto sums = at::matmul(weights, rows.masked_fill(bad, 0));
  const auto nan = rows.isnan();
  const auto add = [&](double sign) {
    const auto marked = (rows == sign * kInfinity).logical_or(nan);
    sums = sums + at::zeros_like(sums).masked_fill(sees(hidden, marked), sign * kInfinity);
  };
  add(1);
  add(-1);
  return sums;
}

at::Tensor seen_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const at::Tensor& mask, double dropout, bool causal,
                          std::optional<double> scale) {
  std::optional<at::Tensor> given;
  if (mask.defined()) given = mask;
  const auto attend = [&](const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
    return at::scaled_dot_product_attention(a, b, c, given, dropout, causal, scale);
  };
  if (!given && !causal) return attend(q, k, v);
  if (is_readable(q) && is_readable(k) && is_readable(v) && all_finite(q) && all_finite(k) &&
      all_finite(v))
    return attend(q, k, v);
  const auto bad_q = is_bad(q), bad_k = is_bad(k), bad_v = is_bad(v);
  at::Tensor hidden;
  if (!given) {
    hidden = at::ones({q.size(2), k.size(2)}, bad_q.options()).tril().logical_not();
  } else {
    hidden = given->scalar_type() == at::kBool ? given->logical_not() : *given == -kInfinity;
  }
  auto pairs = hidden.dim() < 2 ? std::vector<int64_t>(2) : hidden.sizes().vec();
  pairs.end()[-2] = q.size(2);
  pairs.back() = k.size(2);
  const auto spoiled =
      sees(hidden.expand(pairs), bad_k.any(-1, true).logical_or(bad_v.any(-1, true)))
          .logical_or(bad_q.any(-1, true));
  return attend(q.masked_fill(bad_q, 0), k.masked_fill(bad_k, 0), v.masked_fill(bad_v, 0))
      .masked_fill(spoiled, kNan);
}

}  // namespace halcyon
