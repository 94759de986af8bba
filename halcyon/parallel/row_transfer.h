// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "halcyon/parallel/group.h"
#include "halcyon/parallel/row_plan.h"

namespace halcyon::parallel {

// Which rows a rank goes to and comes from in one operation that moves rows; the same object serves
// the forward and, by the same runs read the other way, its adjoint.
struct RowTransfer {
  std::string operation;
  Group group;
  int64_t tag = 0;
  int64_t dim = 0;                      // of the sharded axis
  int64_t local_rows = 0;               // of x
  int64_t rows = 0;                     // of the result
  std::vector<Run> wanted;              // what this rank's result is made of
  std::vector<std::vector<Run>> asked;  // by rank: what it asks of this one
  int64_t fold_dim = 0, fold_shift = 0;
  at::Tensor sign;  // undefined: one
  // What came with the agreement already, by owner, and what went: rows [first, first + rows) of
  // the owner's. Used once.
  struct Piece {
    int64_t first;
    int64_t rows;
    at::Tensor data;  // of what came
  };
  mutable std::map<int64_t, std::vector<Piece>> came, went;

  // How the rows of a run look in the result, and the adjoint of that.
  at::Tensor seen(const at::Tensor& rows, const Run& run) const;
  at::Tensor unseen(const at::Tensor& rows, const Run& run) const;
};

// The result of x.
at::Tensor move_rows(const at::Tensor& x, const std::shared_ptr<const RowTransfer>& transfer);

// A leaf that takes part in the backward where x on this rank needs no gradient but on another
// does, so that no rank waits for a cotangent that nobody computes.
at::Tensor joined_to_backward(const at::Tensor& x, bool any_requires_grad);

}  // namespace halcyon::parallel
