// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/group.h"
#include "halcyon/parallel/row_plan.h"
#include "halcyon/parallel/row_transfer.h"

// For operators whose output rows need input rows of other ranks. All of them go the same way:
// agree, once; compute from the global lengths what every rank needs; fetch it; compute.
namespace halcyon::parallel {

// The sharded axis of x, as all ranks know it after their agreement.
struct ShardedAxis {
  std::string operation;
  Group group;
  int64_t tag = 0;
  int64_t dim = 0;
  std::vector<int64_t> starts;  // of every rank's rows, and the end
  int64_t any_grad = 0;         // which of the tensors need a gradient on any rank, as bits

  int64_t length() const { return starts.back(); }
  // Where the ranks' rows of an output of this length begin: as the input's where the length is the
  // input's, else by the rule of split_sizes.
  std::vector<int64_t> output_starts(int64_t rows) const;
};

// The one agreement. prepare checks the arguments, names the options that must be the same, and
// returns x's sharded axis. parameters: what else may need a gradient; x is bit 0 of any_grad, they
// are the next; undefined ones count as not.
ShardedAxis agree_on_axis(const at::Tensor& x, const std::vector<at::Tensor>& parameters,
                          const Group& group, const std::string& operation,
                          const std::function<int64_t(Agreement&)>& prepare);

// x, or a stand-in that takes part in the backward where any rank needs the gradient.
inline at::Tensor joined(const at::Tensor& x, const ShardedAxis& axis, int64_t bit = 0) {
  return joined_to_backward(x, (axis.any_grad >> bit & 1) != 0);
}

// How rows move so that every rank gets what it wants (plan_rows). Across a fold, longitudes are
// fold_dim.
std::shared_ptr<const RowTransfer> transfer_of(const at::Tensor& x, const ShardedAxis& axis,
                                               const Wanted& wanted, Edge edge,
                                               int64_t fold_dim = -1);

// move_rows by that, or x itself where every rank wants just what it has.
at::Tensor rows_for(const at::Tensor& x, const ShardedAxis& axis, const Wanted& wanted, Edge edge,
                    int64_t fold_dim = -1);

}  // namespace halcyon::parallel
