// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "halcyon/parallel/exchange.h"
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
  // the owner's. For the first forward alone: a second derivative moves them anew.
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

// Makes the transfer one in which every rank gets wanted[rank], one interval after the other, of an
// axis whose parts begin at starts (starts_of). Every rank plans for all, so that what one wants in
// vain is refused by all with the same text. operation, group and dim are set before.
using Wanted = std::vector<std::vector<Interval>>;
void plan_rows(RowTransfer& transfer, const std::vector<int64_t>& starts, const Wanted& wanted,
               Edge edge);

// The result of x.
at::Tensor move_rows(const at::Tensor& x, const std::shared_ptr<const RowTransfer>& transfer);

// Its adjoint: what a cotangent of the result is to x. Differentiable too.
at::Tensor return_rows(const at::Tensor& grad, const std::shared_ptr<const RowTransfer>& transfer);

// The same in two steps, for operations that compute while the rows are under way; no autograd. The
// transfer must outlive it.
class MovingRows {
 public:
  MovingRows(const at::Tensor& x, const RowTransfer& transfer);  // posts
  at::Tensor wait();                                             // the result

 private:
  void take_own();

  const RowTransfer& t_;
  at::Tensor x_, out_;
  std::vector<std::pair<const Run*, at::Tensor>> arriving_;  // to be copied
  Exchange exchange_;
};

class ReturningRows {
 public:
  ReturningRows(const at::Tensor& grad, const RowTransfer& transfer);  // posts
  void arrive();  // before wait(), where nothing is to be computed meanwhile
  // Adds what comes back to this rank's rows; grad's rows of the run skipped are in sum already.
  void wait(const at::Tensor& sum, const Run* skipped = nullptr);

 private:
  at::Tensor returned(const Run& run) const;

  const RowTransfer& t_;
  at::Tensor grad_;
  std::vector<std::pair<const Run*, at::Tensor>> arriving_;
  Exchange exchange_;
};

// A leaf that takes part in the backward where x on this rank needs no gradient but on another
// does, so that no rank waits for a cotangent that nobody computes.
at::Tensor joined_to_backward(const at::Tensor& x, bool any_requires_grad);

}  // namespace halcyon::parallel
