// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/film/folded_table.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include "halcyon/ops/pieces.h"

namespace halcyon::film_detail {
namespace {

// Products here are in the table's type, also under autocast, and on one thread.
struct PlainProducts {
  OneProductThread one;
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
};

}  // namespace

FoldedTable::FoldedTable(const at::Tensor& table, const at::Tensor& weight, const at::Tensor& ids,
                         int64_t observations)
    : table_(table), weight_(weight), ids_(ids), whole_(table.size(0)) {
  if (whole_ <= observations) return;
  cut_ = ids;
  table_ = table.index_select(0, ids);
  ids_ = at::arange(observations, at::kLong);
}

at::Tensor FoldedTable::folded(const at::Tensor& bias) const {
  const PlainProducts plain;
  return bias.defined() ? at::addmm(bias, table_, weight_.t()) : at::mm(table_, weight_.t());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> FoldedTable::unfolded(const at::Tensor& grad) const {
  const PlainProducts plain;
  const auto of_weight = at::mm(grad.t(), table_.to(grad.scalar_type()));
  auto of_table = at::mm(grad, weight_.to(grad.scalar_type()));
  if (cut_.defined())
    of_table = at::embedding_dense_backward(of_table, cut_, whole_, /*padding_idx=*/-1,
                                            /*scale_grad_by_freq=*/false);
  return {of_weight, of_table, at::mv(grad.t(), at::ones({rows()}, grad.options()))};
}

}  // namespace halcyon::film_detail
