// SPDX-License-Identifier: Apache-2.0
// The two halves of neighborhood attention with the scores between them in memory.
#include "halcyon/ops/neighborhood/unfused.h"

#include <ATen/ATen.h>

#include <fmt/ranges.h>

#include <limits>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/neighborhood/arguments.h"
#include "halcyon/ops/neighborhood/operators.h"
#include "halcyon/ops/neighborhood/unfused_backends.h"
#include "halcyon/ops/tuning/switches.h"

namespace halcyon {
namespace {

using MaybeTensor = std::optional<at::Tensor>;

// Without, and in forward mode, the reference computes.
bool has_kernels(const at::Tensor& t) {
  return (t.is_cpu() || t.is_meta()) && is_tiled_na_enabled();
}

void check_operand(const char* operation, const char* name, const at::Tensor& t, int64_t rank) {
  HALCYON_CHECK(t.defined() && !t.is_nested(), operation,
                "expected every operand dense or every one nested, got {} of the other kind", name);
  HALCYON_CHECK_KIND(t.layout() == at::kStrided, unsupported, operation,
                     "expected a dense {}, got a sparse tensor", name);
  check_floating(t, rank, operation, name);
}

void check_like(const char* operation, const char* name, const at::Tensor& t,
                const at::Tensor& like, const std::vector<int64_t>& sizes) {
  check_device(t, like, operation, name);
  HALCYON_CHECK(neighborhood::sizes_of(t) == sizes, operation, "expected {} of shape ({}), got {}",
                name, fmt::join(sizes, ", "), describe(t));
}

void check_dtype(const char* operation, const char* name, const at::Tensor& t,
                 const at::Tensor& like) {
  HALCYON_CHECK(t.scalar_type() == like.scalar_type(), operation, "expected {} in {}, got {}", name,
                c10::toString(like.scalar_type()), c10::toString(t.scalar_type()));
}

std::vector<neighborhood::Axis> checked(const char* operation, std::size_t rank,
                                        const at::Tensor& first,
                                        const NeighborhoodOptions& options) {
  const auto sizes = neighborhood::sizes_of(first);
  return neighborhood::checked_axes(
      operation, {sizes.begin() + 2, sizes.begin() + 2 + static_cast<int64_t>(rank)}, options);
}

at::Tensor scores(const char* operation, std::size_t rank, const at::Tensor& query,
                  const at::Tensor& key, const NeighborhoodOptions& options) {
  const auto dims = static_cast<int64_t>(rank) + 3;
  check_operand(operation, "query", query, dims);
  check_operand(operation, "key", key, dims);
  const auto shape = neighborhood::sizes_of(query);
  check_dtype(operation, "key", key, query);
  check_like(operation, "key", key, query, shape);
  const auto axes = checked(operation, rank, query, options);
  if (options.rpb) {
    std::vector<int64_t> table{shape[1]};
    for (const auto& axis : axes) {
      HALCYON_CHECK_KIND(!axis.causal, unsupported, operation,
                         "expected no rpb with a causal axis, got both");
      table.push_back(2 * axis.kernel - 1);
    }
    check_operand(operation, "rpb", *options.rpb, static_cast<int64_t>(rank) + 1);
    check_like(operation, "rpb", *options.rpb, query, table);
  }
  if (options.additional_keys) {
    check_operand(operation, "additional_keys", *options.additional_keys, 4);
    check_dtype(operation, "additional_keys", *options.additional_keys, query);
    const int64_t more = neighborhood::sizes_of(*options.additional_keys)[2];
    check_like(operation, "additional_keys", *options.additional_keys, query,
               {shape[0], shape[1], more, shape.back()});
  }
  const auto bias = options.rpb ? MaybeTensor(options.rpb->to(key.scalar_type())) : std::nullopt;
  const auto& more = options.additional_keys;
  if (has_kernels(query) && !needs_composition({query, key, bias, more}))
    return neighborhood::dispatched_scores(query, key, bias, more, axes);
  return neighborhood::reference_scores(query, key, bias, more, axes,
                                        -std::numeric_limits<double>::infinity());
}

at::Tensor weighted(const char* operation, std::size_t rank, const at::Tensor& attn,
                    const at::Tensor& value, const NeighborhoodOptions& options) {
  const auto dims = static_cast<int64_t>(rank) + 3;
  check_operand(operation, "attn", attn, dims);
  check_operand(operation, "value", value, dims);
  check_device(attn, value, operation, "attn");
  const auto axes = checked(operation, rank, value, options);
  auto shape = neighborhood::sizes_of(value);
  const int64_t channels = shape.back();
  int64_t window = 1, more = 0;
  for (const auto& axis : axes) window *= axis.kernel;
  if (options.additional_values) {
    check_operand(operation, "additional_values", *options.additional_values, 4);
    check_dtype(operation, "additional_values", *options.additional_values, value);
    more = neighborhood::sizes_of(*options.additional_values)[2];
    check_like(operation, "additional_values", *options.additional_values, value,
               {shape[0], shape[1], more, channels});
  }
  shape.back() = window + more;
  check_like(operation, "attn", attn, value, shape);
  const auto weights = attn.to(value.scalar_type());
  const auto& more_values = options.additional_values;
  if (has_kernels(value) && !needs_composition({weights, value, more_values}))
    return neighborhood::dispatched_sums(weights, value, more_values, axes);
  return neighborhood::reference_sums(weights, value, more_values, axes);
}

// Every component of nested operands is a problem of its own.
template <class F>
at::Tensor each_component(const char* operation, const at::Tensor& first, const at::Tensor& second,
                          const MaybeTensor& third, const F& f) {
  for (const auto& t : {MaybeTensor(first), MaybeTensor(second), third}) {
    if (!t) continue;
    HALCYON_CHECK(t->is_nested() && t->layout() == at::kStrided, operation,
                  "expected every operand nested, got {}",
                  t->is_nested() ? "a jagged layout" : "a dense one");
    HALCYON_CHECK(!t->requires_grad(), operation,
                  "expected nested tensors without gradients, got one that requires them");
  }
  const auto one = first.unbind(0), two = second.unbind(0);
  const auto three = third ? third->unbind(0) : std::vector<at::Tensor>();
  HALCYON_CHECK(one.size() == two.size() && (!third || three.size() == one.size()), operation,
                "expected nested tensors of {} components, got {}", one.size(),
                one.size() != two.size() ? two.size() : three.size());
  std::vector<at::Tensor> results;
  results.reserve(one.size());
  for (std::size_t i = 0; i < one.size(); ++i)
    results.push_back(f(one[i], two[i], third ? MaybeTensor(three[i]) : std::nullopt));
  return at::_nested_tensor_from_tensor_list(results);
}

}  // namespace

at::Tensor na_qk(int rank, const at::Tensor& query, const at::Tensor& key,
                 const NeighborhoodOptions& options) {
  const auto name = fmt::format("na{}d_qk", rank);
  const auto axes = static_cast<std::size_t>(rank);
  if (!query.is_nested() && !key.is_nested())
    return scores(name.c_str(), axes, query, key, options);
  return each_component(name.c_str(), query, key, options.additional_keys,
                        [&](const at::Tensor& q, const at::Tensor& k, const MaybeTensor& more) {
                          auto own = options;
                          own.additional_keys = more;
                          return scores(name.c_str(), axes, q, k, own);
                        });
}

at::Tensor na_av(int rank, const at::Tensor& attn, const at::Tensor& value,
                 const NeighborhoodOptions& options) {
  const auto name = fmt::format("na{}d_av", rank);
  const auto axes = static_cast<std::size_t>(rank);
  if (!attn.is_nested() && !value.is_nested())
    return weighted(name.c_str(), axes, attn, value, options);
  return each_component(name.c_str(), attn, value, options.additional_values,
                        [&](const at::Tensor& a, const at::Tensor& v, const MaybeTensor& more) {
                          auto own = options;
                          own.additional_values = more;
                          return weighted(name.c_str(), axes, a, v, own);
                        });
}

}  // namespace halcyon
