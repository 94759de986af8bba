// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/arguments.h"

#include <fmt/ranges.h>

#include <cmath>

#include "halcyon/ops/checks.h"

namespace halcyon::neighborhood {
namespace {

int64_t of_axis(const char* operation, const char* name, const std::vector<int64_t>& values,
                std::size_t axis, std::size_t axes) {
  HALCYON_CHECK(values.size() == 1 || values.size() == axes, operation,
                "expected one {} or {}, one an axis, got {}", name, axes, values.size());
  return values.size() == 1 ? values[0] : values[axis];
}

bool flag_of_axis(const char* operation, const char* name, const std::vector<int64_t>& values,
                  std::size_t axis, std::size_t axes) {
  const int64_t value = of_axis(operation, name, values, axis, axes);
  HALCYON_CHECK(value == 0 || value == 1, operation, "expected {} of 0 or 1, got {}", name, value);
  return value == 1;
}

std::string text(const std::vector<int64_t>& sizes) {
  return fmt::format("({})", fmt::join(sizes, ", "));
}

void check_operand(const char* operation, const char* name, const at::Tensor& t,
                   const at::Tensor& query, const std::vector<int64_t>& sizes) {
  HALCYON_CHECK(t.defined(), operation, "expected {}, got an undefined tensor", name);
  check_dense(operation, name, t);
  HALCYON_CHECK(t.scalar_type() == query.scalar_type(), operation,
                "expected {} in the dtype of query, {}, got {}", name,
                c10::toString(query.scalar_type()), c10::toString(t.scalar_type()));
  check_device(t, query, operation, name);
  const auto actual = sizes_of(t);
  HALCYON_CHECK(actual == sizes, operation, "expected {} of shape {}, got {}", name, text(sizes),
                text(actual));
}

}  // namespace

void check_dense(const char* operation, const char* name, const at::Tensor& t) {
  HALCYON_CHECK_KIND(!t.defined() || (!t.is_nested() && t.layout() == at::kStrided), unsupported,
                     operation, "expected a dense {}, got a nested or sparse tensor", name);
}

std::vector<int64_t> sizes_of(const at::Tensor& t) {
  std::vector<int64_t> sizes;
  for (const auto& size : t.sym_sizes()) sizes.push_back(size.guard_int(__FILE__, __LINE__));
  return sizes;
}

std::vector<Axis> checked_windows(const char* operation, std::size_t rank,
                                  const NeighborhoodOptions& options) {
  std::vector<Axis> axes(rank);
  for (std::size_t a = 0; a < rank; ++a) {
    auto& axis = axes[a];
    axis.kernel = of_axis(operation, "kernel_size", options.kernel_size, a, rank);
    axis.dilation = of_axis(operation, "dilation", options.dilation, a, rank);
    axis.stride = of_axis(operation, "stride", options.stride, a, rank);
    axis.causal = flag_of_axis(operation, "is_causal", options.is_causal, a, rank);
    axis.periodic = flag_of_axis(operation, "periodic", options.periodic, a, rank);
    HALCYON_CHECK(axis.kernel >= 1, operation, "expected a kernel_size of 1 or more, got {}",
                  axis.kernel);
    HALCYON_CHECK(axis.dilation >= 1, operation, "expected a dilation of 1 or more, got {}",
                  axis.dilation);
    HALCYON_CHECK(axis.stride >= 1 && axis.stride <= axis.kernel, operation,
                  "expected a stride in 1..{}, the kernel_size, got {}", axis.kernel, axis.stride);
    if (!axis.periodic) continue;
    HALCYON_CHECK_KIND(!axis.causal, unsupported, operation,
                       "expected a periodic axis without causality, got both on axis {}", a);
    HALCYON_CHECK_KIND(axis.stride == 1, unsupported, operation,
                       "expected stride 1 on a periodic axis, got {} on axis {}", axis.stride, a);
  }
  return axes;
}

std::vector<Axis> checked_axes(const char* operation, const std::vector<int64_t>& lengths,
                               const NeighborhoodOptions& options) {
  auto axes = checked_windows(operation, lengths.size(), options);
  for (std::size_t a = 0; a < lengths.size(); ++a) {
    auto& axis = axes[a];
    axis.length = lengths[a];
    HALCYON_CHECK(
        axis.dilation <= axis.length && axis.kernel <= axis.length / axis.dilation, operation,
        "expected kernel_size * dilation of at most {}, the length of axis {}, got {} * {}",
        axis.length, a, axis.kernel, axis.dilation);
    HALCYON_CHECK(!axis.periodic || axis.length % axis.dilation == 0, operation,
                  "expected a dilation that divides {}, the length of periodic axis {}, got {}",
                  axis.length, a, axis.dilation);
  }
  return axes;
}

Inputs checked_inputs(const char* operation, std::size_t rank, const at::Tensor& query,
                      const at::Tensor& key, const at::Tensor& value,
                      const NeighborhoodOptions& options) {
  for (const auto& [name, t] : {std::pair("query", query), {"key", key}, {"value", value}})
    check_dense(operation, name, t);
  check_floating(query, static_cast<int64_t>(rank) + 3, operation, "query");
  const auto shape = sizes_of(query);
  const std::vector<int64_t> lengths(shape.begin() + 1, shape.end() - 2);
  const int64_t heads = shape[rank + 1], width = shape[rank + 2];
  HALCYON_CHECK(heads > 0 && width > 0, operation, "expected query with heads and channels, got {}",
                text(shape));
  check_floating(key, query.dim(), operation, "key");
  check_floating(value, query.dim(), operation, "value");
  const auto of_key = sizes_of(key), of_value = sizes_of(value);
  const int64_t groups = of_key[rank + 1];
  HALCYON_CHECK(groups > 0 && heads % groups == 0, operation,
                "expected key heads that divide the {} of query, got {}", heads, groups);
  auto expected = shape;
  expected[rank + 1] = groups;
  check_operand(operation, "key", key, query, expected);
  expected.back() = of_value.back();
  HALCYON_CHECK(of_value.back() > 0, operation, "expected value with channels, got {}",
                text(of_value));
  check_operand(operation, "value", value, query, expected);

  Inputs in{query, key, value, {}, {}, {}, checked_axes(operation, lengths, options), 0};
  in.scale = options.scale.value_or(std::pow(static_cast<double>(width), -0.5));
  HALCYON_CHECK(std::isfinite(in.scale), operation, "expected a finite scale, got {}", in.scale);
  if (options.rpb) {
    std::vector<int64_t> table{heads};
    for (const auto& axis : in.axes) {
      HALCYON_CHECK_KIND(!axis.causal, unsupported, operation,
                         "expected no rpb with a causal axis, got both");
      table.push_back(2 * axis.kernel - 1);
    }
    check_operand(operation, "rpb", *options.rpb, query, table);
    in.bias = options.rpb;
  }
  HALCYON_CHECK(options.additional_keys.has_value() == options.additional_values.has_value(),
                operation,
                "expected additional_keys and additional_values together, got one of them");
  if (options.additional_keys) {
    check_dense(operation, "additional_keys", *options.additional_keys);
    check_floating(*options.additional_keys, 4, operation, "additional_keys");
    const int64_t more = sizes_of(*options.additional_keys)[1];
    check_operand(operation, "additional_keys", *options.additional_keys, query,
                  {shape[0], more, groups, width});
    check_operand(operation, "additional_values", *options.additional_values, query,
                  {shape[0], more, groups, of_value.back()});
    in.more_keys = options.additional_keys;
    in.more_values = options.additional_values;
  }
  return in;
}

}  // namespace halcyon::neighborhood
