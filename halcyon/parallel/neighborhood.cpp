// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/neighborhood.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/ops/neighborhood/arguments.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/row_transfer.h"
#include "halcyon/parallel/sharded_operands.h"
#include "halcyon/parallel/window_rows.h"

namespace halcyon::parallel {
namespace {

using neighborhood::Axis;

std::string text_of(const std::optional<at::Tensor>& t) {
  return t ? describe(*t) : "";
}

void agree_on(Agreement& agreement, const NeighborhoodOptions& options) {
  const auto text = [](const std::vector<int64_t>& v) { return fmt::format("{}", v); };
  agreement.same("kernel_size", text(options.kernel_size));
  agreement.same("dilation", text(options.dilation));
  agreement.same("stride", text(options.stride));
  agreement.same("is_causal", text(options.is_causal));
  agreement.same("periodic", text(options.periodic));
  agreement.same("scale", options.scale ? fmt::format("{}", *options.scale) : "");
  agreement.same("backend", options.backend);
  agreement.same("shape of rpb", text_of(options.rpb));
  agreement.same("shape of additional_keys", text_of(options.additional_keys));
  agreement.same("shape of additional_values", text_of(options.additional_values));
}

// The same windows, one value an axis; the rows of axis `sharded` are unwrapped.
NeighborhoodOptions options_on_rows(const NeighborhoodOptions& options,
                                    const std::vector<Axis>& axes, size_t sharded) {
  auto result = options;
  result.kernel_size.clear(), result.dilation.clear(), result.stride.clear();
  result.is_causal.clear(), result.periodic.clear();
  for (size_t a = 0; a < axes.size(); ++a) {
    result.kernel_size.push_back(axes[a].kernel);
    result.dilation.push_back(axes[a].dilation);
    result.stride.push_back(axes[a].stride);
    result.is_causal.push_back(axes[a].causal);
    result.periodic.push_back(axes[a].periodic && a != sharded);
  }
  return result;
}

std::shared_ptr<RowTransfer> transfer_of(const char* operation, const Group& group, int64_t tag,
                                         int64_t dim, const std::vector<int64_t>& starts,
                                         const Axis& axis) {
  auto transfer = std::make_shared<RowTransfer>();
  transfer->operation = operation;
  transfer->group = group;
  transfer->tag = tag;
  transfer->dim = dim;
  Wanted wanted;
  for (int64_t r = 0; r < group.size(); ++r) {
    wanted.push_back({window_rows(axis, starts[r], starts[r + 1])});
  }
  plan_rows(*transfer, starts, wanted, axis.periodic ? Edge::periodic : Edge::none);
  return transfer;
}

// What can be checked without the others.
int64_t checked_dim(const char* operation, int64_t rank, const at::Tensor& query,
                    const at::Tensor& key, const at::Tensor& value, int64_t shard_dim) {
  for (const auto& [name, t] : {std::pair("query", query), {"key", key}, {"value", value}}) {
    neighborhood::check_dense(operation, name, t);
    HALCYON_CHECK(t.defined() && t.dim() == rank + 3, operation, "expected {} of {} axes, got {}",
                  name, rank + 3, describe(t));
  }
  const auto dim = shard_dim < 0 ? shard_dim + rank + 3 : shard_dim;
  HALCYON_CHECK(1 <= dim && dim <= rank, operation,
                "expected shard_dim as a spatial axis, 1 to {}, got {}", rank, shard_dim);
  HALCYON_CHECK(key.size(dim) == query.size(dim) && value.size(dim) == query.size(dim), operation,
                "expected key and value with as many rows on this rank as query, {}, got {} and {}",
                query.size(dim), key.size(dim), value.size(dim));
  return dim;
}

AttentionOutput nothing(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                        const NeighborhoodOptions& options) {
  std::vector<at::Tensor> operands{query, key, value};
  for (const auto& t : {options.rpb, options.additional_keys, options.additional_values}) {
    if (t) operands.push_back(*t);
  }
  auto sizes = query.sizes().vec();
  sizes.back() = value.size(-1);
  const auto out = empty_result(sizes, operands, query.scalar_type());
  sizes.pop_back();
  return {out, empty_result(sizes, operands, neighborhood::accumulate_type(query))};
}

AttentionOutput attend(const char* operation, int64_t rank, const at::Tensor& query,
                       const at::Tensor& key, const at::Tensor& value,
                       const NeighborhoodOptions& options, int64_t shard_dim, const Group& group) {
  Agreement agreement(group, operation);
  int64_t dim = 0;
  size_t rows_at = 0, grad_at = 0;
  agreement.prepare([&] {
    dim = checked_dim(operation, rank, query, key, value, shard_dim);
    agreement.same("shard_dim", dim);
    agreement.same_but("query", query, dim);
    agreement.same_but("key", key, dim);
    agreement.same_but("value", value, dim);
    agree_on(agreement, options);
    rows_at = agreement.each(query.size(dim));
    grad_at = agreement.each(key.requires_grad() || value.requires_grad());
  });
  agreement.post();
  agreement.finish();
  const auto starts = starts_of(agreement.of_all(rows_at));
  const auto whole = [&](const at::Tensor& t) { return stand_in(t, dim, starts.back()); };
  const auto checked = neighborhood::checked_inputs(
      operation, static_cast<size_t>(rank), whole(query), whole(key), whole(value), options);
  if (group.size() == 1)
    return neighborhood::attend(operation, static_cast<size_t>(rank), query, key, value, options);

  const auto start = starts[group.rank()], stop = starts[group.rank() + 1];
  const auto sharded = static_cast<size_t>(dim - 1);
  const auto& axis = checked.axes[sharded];
  const auto kv = joined_to_backward(at::cat({key, value}, -1), agreement.any(grad_at));
  const auto rows =
      move_rows(kv, transfer_of(operation, group, agreement.tag(), dim, starts, axis));
  if (start == stop) {
    const auto k = rows.narrow(-1, 0, key.size(-1)),
               v = rows.narrow(-1, key.size(-1), value.size(-1));
    return nothing(query, k, v, options);
  }
  const auto interval = window_rows(axis, start, stop);
  const auto before = start - interval.lo, after = interval.hi - stop;
  const auto result = neighborhood::attend(
      operation, static_cast<size_t>(rank), with_zeros(query, dim, before, after),
      rows.narrow(-1, 0, key.size(-1)), rows.narrow(-1, key.size(-1), value.size(-1)),
      options_on_rows(options, checked.axes, sharded));
  return {result.out.narrow(dim, before, stop - start),
          result.lse.narrow(dim, before, stop - start)};
}

}  // namespace

AttentionOutput na1d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options, int64_t shard_dim, const Group& group) {
  return attend("na1d", 1, query, key, value, options, shard_dim, group);
}
AttentionOutput na2d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options, int64_t shard_dim, const Group& group) {
  return attend("na2d", 2, query, key, value, options, shard_dim, group);
}
AttentionOutput na3d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options, int64_t shard_dim, const Group& group) {
  return attend("na3d", 3, query, key, value, options, shard_dim, group);
}

}  // namespace halcyon::parallel
