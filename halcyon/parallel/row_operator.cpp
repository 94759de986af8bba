// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/row_operator.h"

#include <ATen/ATen.h>

#include "halcyon/base/error.h"

namespace halcyon::parallel {

std::vector<int64_t> ShardedAxis::output_starts(int64_t rows) const {
  return rows == length() ? starts : starts_of(split_sizes(rows, group));
}

ShardedAxis agree_on_axis(const at::Tensor& x, const std::vector<at::Tensor>& parameters,
                          const Group& group, const std::string& operation,
                          const std::function<int64_t(Agreement&)>& prepare) {
  ShardedAxis axis{.operation = operation, .group = group, .starts = {}};
  Agreement agreement(group, operation);
  size_t rows_at = 0, grad_at = 0;
  agreement.prepare([&] {
    axis.dim = prepare(agreement);
    agreement.same_but("x", x, axis.dim);
    agreement.same("dim", axis.dim);
    int64_t grads = x.requires_grad();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const bool needs = parameters[i].defined() && parameters[i].requires_grad();
      grads |= static_cast<int64_t>(needs) << (i + 1);
    }
    rows_at = agreement.each(x.size(axis.dim));
    grad_at = agreement.each(grads);
  });
  agreement.post();
  agreement.finish();
  axis.tag = agreement.tag();
  axis.starts = starts_of(agreement.of_all(rows_at));
  for (const auto grads : agreement.of_all(grad_at)) axis.any_grad |= grads;
  return axis;
}

std::shared_ptr<const RowTransfer> transfer_of(const at::Tensor& x, const ShardedAxis& axis,
                                               const Wanted& wanted, Edge edge, int64_t fold_dim) {
  auto t = std::make_shared<RowTransfer>();
  t->operation = axis.operation;
  t->group = axis.group;
  t->tag = axis.tag;
  t->dim = axis.dim;
  if (edge == Edge::fold) {
    t->fold_dim = fold_dim < 0 ? fold_dim + x.dim() : fold_dim;
    t->fold_shift = x.size(t->fold_dim) / 2;
  }
  plan_rows(*t, axis.starts, wanted, edge);
  return t;
}

at::Tensor rows_for(const at::Tensor& x, const ShardedAxis& axis, const Wanted& wanted, Edge edge,
                    int64_t fold_dim) {
  bool is_own = true;
  for (size_t r = 0; r < wanted.size() && is_own; ++r) {
    const auto first = axis.starts[r], last = axis.starts[r + 1];
    is_own = wanted[r].size() == 1 && ((wanted[r][0].lo == first && wanted[r][0].hi == last) ||
                                       (first == last && wanted[r][0].lo == wanted[r][0].hi));
  }
  if (is_own) return joined(x, axis);
  return move_rows(joined(x, axis), transfer_of(x, axis, wanted, edge, fold_dim));
}

}  // namespace halcyon::parallel
