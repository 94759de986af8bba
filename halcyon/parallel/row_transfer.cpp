// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/row_transfer.h"

#include <ATen/ATen.h>

#include <utility>

#include "halcyon/base/error.h"
#include "halcyon/base/recycled.h"
#include "halcyon/parallel/axes.h"
#include "halcyon/parallel/both_ways.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/tags.h"

namespace halcyon::parallel {
namespace {

using Transfer = std::shared_ptr<const RowTransfer>;

void zero_between(const at::Tensor& out, const RowTransfer& transfer) {
  int64_t at = 0;
  for (const auto& run : transfer.wanted) {
    if (run.target > at) out.narrow(transfer.dim, at, run.target - at).zero_();
    at = run.target + run.rows;
  }
  if (at < transfer.rows) out.narrow(transfer.dim, at, transfer.rows - at).zero_();
}

// The run puts all of x in one place.
bool is_whole(const Run& run, const RowTransfer& t) {
  return run.owner == t.group.rank() && run.source == 0 && run.rows == t.local_rows &&
         !run.reversed && !run.folded;
}

// The piece that holds the run's rows, if any.
const RowTransfer::Piece* piece_of(const std::map<int64_t, std::vector<RowTransfer::Piece>>& pieces,
                                   int64_t peer, const Run& run) {
  const auto found = pieces.find(peer);
  if (found == pieces.end()) return nullptr;
  for (const auto& piece : found->second) {
    if (piece.first <= run.source && run.source + run.rows <= piece.first + piece.rows) {
      return &piece;
    }
  }
  return nullptr;
}

at::Tensor adjoint_of(const at::Tensor& grad, const RowTransfer& t) {
  ReturningRows returning(grad, t);
  // the one run that holds all of x is copied, what else there is added
  const auto sizes = sizes_with(grad, t.dim, t.local_rows);
  for (const auto& run : t.wanted) {
    if (!is_whole(run, t)) continue;
    if (!has_cores_to_overlap(t.group)) returning.arrive();
    const auto out = recycled_empty(sizes, grad.options());
    out.copy_(t.unseen(grad.narrow(t.dim, run.target, run.rows), run));
    returning.wait(out, &run);
    return out;
  }
  const auto out = at::zeros(sizes, grad.options());
  returning.wait(out);
  return out;
}

at::Tensor moved(const at::Tensor& x, const RowTransfer& t, bool adjoint) {
  return adjoint ? adjoint_of(x, t) : MovingRows(x, t).wait();
}

using MoveRows = BothWays<RowTransfer, &moved>;

}  // namespace

MovingRows::MovingRows(const at::Tensor& x, const RowTransfer& t)
    : t_(t), x_(x), exchange_(t.group, t.operation, t.tag) {
  const auto me = t.group.rank();
  const auto came = std::exchange(t.came, {}), went = std::exchange(t.went, {});
  out_ = recycled_empty(sizes_with(x, t.dim, t.rows), x.options());
  for (const auto& run : t.wanted) {
    if (run.owner == me) continue;
    if (const auto* piece = piece_of(came, run.owner, run)) {
      arriving_.emplace_back(&run, piece->data.narrow(t.dim, run.source - piece->first, run.rows));
      continue;
    }
    auto into = out_.narrow(t.dim, run.target, run.rows);
    if (run.reversed || run.folded || !into.is_contiguous()) {
      into = at::empty(into.sizes(), x.options());
      arriving_.emplace_back(&run, into);
    }
    exchange_.receive(run.owner, into);
  }
  for (int64_t r = 0; r < t.group.size(); ++r) {
    if (r == me) continue;
    for (const auto& run : t.asked[r]) {
      if (!piece_of(went, r, run)) {
        exchange_.send(r, x.narrow(t.dim, run.source, run.rows).contiguous());
      }
    }
  }
  exchange_.post();
}

void MovingRows::take_own() {
  for (const auto& run : t_.wanted) {
    if (run.owner != t_.group.rank()) continue;
    const auto rows = x_.narrow(t_.dim, run.source, run.rows);
    out_.narrow(t_.dim, run.target, run.rows).copy_(t_.seen(rows, run));
  }
  zero_between(out_, t_);
}

at::Tensor MovingRows::wait() {
  const bool overlaps = has_cores_to_overlap(t_.group);
  if (overlaps) take_own();
  exchange_.wait();
  if (!overlaps) take_own();
  for (const auto& [run, rows] : arriving_) {
    out_.narrow(t_.dim, run->target, run->rows).copy_(t_.seen(rows, *run));
  }
  return out_;
}

ReturningRows::ReturningRows(const at::Tensor& grad, const RowTransfer& t)
    : t_(t), grad_(grad), exchange_(t.group, t.operation + " backward", t.tag + kAdjoint) {
  const auto me = t.group.rank();
  for (int64_t r = 0; r < t.group.size(); ++r) {
    if (r == me) continue;
    for (const auto& run : t.asked[r]) {
      arriving_.emplace_back(&run, at::empty(sizes_with(grad, t.dim, run.rows), grad.options()));
      exchange_.receive(r, arriving_.back().second);
    }
  }
  for (const auto& run : t.wanted) {
    if (run.owner != me) exchange_.send(run.owner, returned(run).contiguous());
  }
  exchange_.post();
}

void ReturningRows::arrive() {
  exchange_.wait();
}

void ReturningRows::wait(const at::Tensor& sum, const Run* skipped) {
  const auto add = [&](const Run& run, const at::Tensor& rows) {
    sum.narrow(t_.dim, run.source, run.rows).add_(rows);
  };
  for (const auto& run : t_.wanted) {
    if (run.owner == t_.group.rank() && &run != skipped) add(run, returned(run));
  }
  exchange_.wait();
  for (const auto& [run, rows] : arriving_) add(*run, rows);
}

at::Tensor ReturningRows::returned(const Run& run) const {
  return t_.unseen(grad_.narrow(t_.dim, run.target, run.rows), run);
}

at::Tensor RowTransfer::seen(const at::Tensor& from, const Run& run) const {
  auto out = from;
  if (run.reversed) out = out.flip(dim);
  if (!run.folded) return out;
  if (fold_shift != 0) out = out.roll(fold_shift, fold_dim);
  return sign.defined() ? out * sign : out;
}

at::Tensor RowTransfer::unseen(const at::Tensor& from, const Run& run) const {
  auto out = from;
  if (run.folded) {
    if (sign.defined()) out = out * sign;
    if (fold_shift != 0) out = out.roll(-fold_shift, fold_dim);
  }
  return run.reversed ? out.flip(dim) : out;
}

void plan_rows(RowTransfer& t, const std::vector<int64_t>& starts, const Wanted& wanted,
               Edge edge) {
  const auto me = t.group.rank(), ranks = t.group.size();
  t.local_rows = starts[me + 1] - starts[me];
  t.asked.resize(ranks);
  for (int64_t r = 0; r < ranks; ++r) {
    int64_t rows = 0;
    for (const auto& interval : wanted[r]) {
      for (auto run : runs_of(interval, starts, edge, t.operation)) {
        run.target += rows;
        if (run.owner == me) t.asked[r].push_back(run);
        if (r == me) t.wanted.push_back(run);
      }
      rows += rows_of(interval, starts.back(), edge);
    }
    if (r == me) t.rows = rows;
  }
}

at::Tensor move_rows(const at::Tensor& x, const Transfer& transfer) {
  return MoveRows::apply(x, transfer, false);
}

at::Tensor return_rows(const at::Tensor& grad, const Transfer& transfer) {
  return MoveRows::apply(grad, transfer, true);
}

at::Tensor joined_to_backward(const at::Tensor& x, bool any_requires_grad) {
  if (!any_requires_grad || x.requires_grad()) return x;
  return x.detach().requires_grad_();
}

}  // namespace halcyon::parallel
