// SPDX-License-Identifier: Apache-2.0
// Plain attention and packed sequences, over torch's own operators.
#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "halcyon/ops/attention/backends.h"
#include "halcyon/ops/checks.h"
#include "halcyon/ops/hidden.h"
#include "halcyon/ops/neighborhood/arguments.h"

namespace halcyon {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Rows of one sequence: (B, T, H, c).
AttentionOutput attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                       bool causal, double scale, bool with_lse) {
  const auto type = neighborhood::accumulate_type(query);
  const int64_t shared = query.size(2) / key.size(2);
  if (key.size(1) == 0 || query.numel() == 0) {
    // no key at all: 0, with a gradient for everything
    auto shape = query.sizes().vec();
    shape.back() = value.size(-1);
    auto out = at::zeros(shape, query.options());
    shape.pop_back();
    const auto none = [](const at::Tensor& t) { return t.flatten().narrow(0, 0, 0).sum(); };
    const auto nothing = none(query) + none(key) + none(value);
    return {out + nothing, at::full(shape, -kInfinity, query.options().dtype(type)) + nothing};
  }
  if (query.is_cpu() && key.size(1) == query.size(1)) {
    NeighborhoodOptions options;
    options.kernel_size = {query.size(1)};
    options.is_causal = {causal};
    options.scale = scale;
    const auto result = neighborhood::attend("attention", 1, query, key, value, options);
    return {result.out, with_lse ? result.lse : at::Tensor()};
  }
  const auto heads_first = [&](const at::Tensor& t) {
    return t.transpose(1, 2).repeat_interleave(t.size(2) == query.size(2) ? 1 : shared, 1);
  };
  const auto out =
      seen_attention(heads_first(query), heads_first(key), heads_first(value), {}, 0, causal, scale)
          .transpose(1, 2);
  if (!with_lse) return {out, {}};
  // torch's fused attention has an lse, but no gradient through it
  return {out, attention_detail::composed({query, key, value, scale, causal}).lse};
}

void check_operands(const char* name, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) {
  for (const auto& [what, t] : {std::pair("query", query), {"key", key}, {"value", value}}) {
    neighborhood::check_dense(name, what, t);
    check_floating(t, 4, name, what);
    HALCYON_CHECK(t.scalar_type() == query.scalar_type(), name,
                  "expected {} in the dtype of query, {}, got {}", what,
                  c10::toString(query.scalar_type()), c10::toString(t.scalar_type()));
    check_device(t, query, name, what);
    HALCYON_CHECK(t.size(0) == query.size(0), name, "expected {} with batch {}, got {}", what,
                  query.size(0), describe(t));
    HALCYON_CHECK(t.size(2) > 0 && t.size(3) > 0, name,
                  "expected {} with heads and channels, got {}", what, describe(t));
  }
  HALCYON_CHECK(key.size(3) == query.size(3), name, "expected key with {} channels, got {}",
                query.size(3), key.size(3));
  HALCYON_CHECK(query.size(2) % key.size(2) == 0, name,
                "expected key heads that divide the {} of query, got {}", query.size(2),
                key.size(2));
  HALCYON_CHECK(value.size(1) == key.size(1) && value.size(2) == key.size(2), name,
                "expected value of key's tokens and heads, {}, got {}", describe(key),
                describe(value));
}

void check_lengths(const char* name, const char* what, const std::vector<int64_t>& lengths,
                   const at::Tensor& t) {
  int64_t total = 0;
  HALCYON_CHECK(t.size(0) == 1, name, "expected batch 1 with {}, got {}", what, t.size(0));
  for (const int64_t length : lengths) {
    HALCYON_CHECK(length >= 0 && length <= t.size(1) - total, name,
                  "expected {} of 0 or more that sum to {}, got {} after {}", what, t.size(1),
                  length, total);
    total += length;
  }
  HALCYON_CHECK(total == t.size(1), name, "expected {} that sum to {}, got {}", what, t.size(1),
                total);
}

AttentionOutput joined(const std::vector<AttentionOutput>& parts) {
  std::vector<at::Tensor> outs, lses;
  for (const auto& part : parts) {
    outs.push_back(part.out);
    if (part.lse.defined()) lses.push_back(part.lse);
  }
  return {at::cat(outs, 1), lses.empty() ? at::Tensor() : at::cat(lses, 1)};
}

}  // namespace

AttentionOutput attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                          const AttentionOptions& options) {
  constexpr auto kName = "attention";
  check_operands(kName, query, key, value);
  const double scale = options.scale.value_or(std::pow(static_cast<double>(query.size(3)), -0.5));
  HALCYON_CHECK(std::isfinite(scale), kName, "expected a finite scale, got {}", scale);
  HALCYON_CHECK(options.seqlens_q.has_value() == options.seqlens_kv.has_value(), kName,
                "expected seqlens_Q and seqlens_KV together, got one of them");
  if (!options.seqlens_q)
    return attend(query, key, value, options.is_causal, scale, options.with_lse);

  const auto &of_query = *options.seqlens_q, &of_key = *options.seqlens_kv;
  HALCYON_CHECK(of_query.size() == of_key.size(), kName,
                "expected as many seqlens_KV as seqlens_Q, {}, got {}", of_query.size(),
                of_key.size());
  check_lengths(kName, "seqlens_Q", of_query, query);
  check_lengths(kName, "seqlens_KV", of_key, key);
  std::vector<AttentionOutput> parts;
  int64_t first_query = 0, first_key = 0;
  for (std::size_t i = 0; i < of_query.size(); ++i) {
    parts.push_back(
        attend(query.narrow(1, first_query, of_query[i]), key.narrow(1, first_key, of_key[i]),
               value.narrow(1, first_key, of_key[i]), options.is_causal, scale, options.with_lse));
    first_query += of_query[i];
    first_key += of_key[i];
  }
  if (parts.empty()) return attend(query, key, value, options.is_causal, scale, options.with_lse);
  return joined(parts);
}

AttentionOutput na1d_varlen(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const std::vector<int64_t>& seqlens,
                            const NeighborhoodOptions& options) {
  constexpr auto kName = "na1d_varlen";
  check_operands(kName, query, key, value);
  HALCYON_CHECK(key.size(1) == query.size(1), kName, "expected key with {} tokens, got {}",
                query.size(1), key.size(1));
  check_lengths(kName, "seqlens", seqlens, query);
  HALCYON_CHECK(!options.additional_keys && !options.additional_values, kName,
                "expected no additional tokens, got some");
  std::vector<AttentionOutput> parts;
  int64_t first = 0;
  for (const int64_t length : seqlens) {
    const auto part = [&](const at::Tensor& t) { return t.narrow(1, first, length); };
    if (length > 0)
      parts.push_back(neighborhood::attend(kName, 1, part(query), part(key), part(value), options));
    first += length;
  }
  if (!parts.empty()) return joined(parts);
  return attend(query, key, value, false, 1, true);
}

}  // namespace halcyon
