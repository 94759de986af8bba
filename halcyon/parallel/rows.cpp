// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/rows.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/axes.h"
#include "halcyon/parallel/row_gather.h"
#include "halcyon/parallel/row_transfer.h"

namespace halcyon::parallel {
namespace {

constexpr int64_t kFarthest = int64_t{1} << 40;  // so that no sum of row numbers overflows

// The fold, after its checks.
struct Pole {
  int64_t dim = 0;
  std::optional<Group> group;
  at::Tensor sign;
};

Pole pole_of(const at::Tensor& x, int64_t dim, const Fold& fold, const std::string& operation) {
  Pole pole{axis_of(x, fold.dim, "fold_dim", operation), fold.group, {}};
  HALCYON_CHECK(pole.dim != dim, operation,
                "expected fold_dim, the longitudes, to be another axis than dim, got {} for both",
                dim);
  if (const auto* number = std::get_if<double>(&fold.sign)) {
    if (*number != 1.0) pole.sign = at::scalar_tensor(*number, x.options());
    return pole;
  }
  const auto& sign = std::get<at::Tensor>(fold.sign);
  HALCYON_CHECK(sign.defined() && sign.dim() <= x.dim(), operation,
                "expected fold_sign as a number or a tensor that broadcasts against x");
  for (int64_t i = 0; i < sign.dim(); ++i) {
    const auto axis = x.dim() - sign.dim() + i;
    HALCYON_CHECK(
        sign.size(i) == 1 || (sign.size(i) == x.size(axis) && axis != dim && axis != pole.dim),
        operation,
        "expected fold_sign to broadcast against x, with one entry along dim and fold_dim,"
        " got {} for x {}",
        describe(sign), describe(x));
  }
  pole.sign = sign.detach().to(x.options());
  return pole;
}

void agree_on_sign(Agreement& agreement, const at::Tensor& sign) {
  const auto bits = sign.defined() ? sign.cpu().contiguous() : at::Tensor();
  agreement.same_bits("fold_sign", sign.defined() ? bits.const_data_ptr() : nullptr,
                      sign.defined() ? bits.nbytes() : 0);
}

// The folded rows of a result at both ends, as they lie on the ranks along the longitudes: each
// takes those half way round.
at::Tensor rolled_over_ranks(const at::Tensor& x, int64_t dim, const std::vector<Run>& runs,
                             const Pole& pole, const std::string& operation) {
  int64_t above = 0, below = 0;
  for (const auto& run : runs) {
    if (run.folded) (run.target == above ? above : below) += run.rows;
  }
  const auto rows = x.size(dim);
  const auto roll = [&](int64_t first, int64_t count) {
    RowRequest request;
    request.kind = RowRequest::half_back;
    request.edge_name = "periodic";
    return gather_rows_as(x.narrow(dim, first, count), request, pole.dim, *pole.group,
                          operation + " across the pole");
  };
  return at::cat(
      {roll(0, above), x.narrow(dim, above, rows - above - below), roll(rows - below, below)}, dim);
}

Interval interval_of(const RowRequest& request, int64_t start, int64_t stop, int64_t total,
                     int64_t lo, int64_t hi) {
  switch (request.kind) {
    case RowRequest::absolute:
      return {lo, hi};
    case RowRequest::halo:
      return {start - request.before, stop + request.after};
    case RowRequest::half_back:
      return {start - total / 2, stop - total / 2};
  }
  return {0, 0};
}

// The rows that a rank with so many attaches for a neighbour to its header: what a halo takes from
// the next rank at most. The neighbour finds the same by what it was told.
std::vector<RowTransfer::Piece> attached_to(int64_t peer, int64_t owner, int64_t rows,
                                            const RowRequest& request, const RowTransfer& t,
                                            Edge edge, const at::Tensor& x) {
  const auto ranks = t.group.size();
  const auto follows = [&](int64_t a, int64_t b) {
    return a + 1 == b || (edge == Edge::periodic && a == ranks - 1 && b == 0);
  };
  std::vector<RowTransfer::Piece> pieces;
  if (peer == owner) return pieces;
  int64_t bytes = 0;
  const auto add = [&](int64_t first, int64_t count) {
    if (count == 0) return;
    int64_t size = count * x.element_size();
    for (int64_t i = 0; i < x.dim(); ++i) size *= i == t.dim ? 1 : x.size(i);
    bytes += size + 64;  // as they are padded
    pieces.push_back({first, count, {}});
  };
  const auto before = std::min(request.before, rows), after = std::min(request.after, rows);
  if (follows(owner, peer)) add(rows - before, before);
  if (follows(peer, owner)) add(0, after);
  if (bytes > Agreement::kAttached || bytes == 0) pieces.clear();
  return pieces;
}

}  // namespace

at::Tensor gather_rows_as(const at::Tensor& given, const RowRequest& request, int64_t dim_given,
                          const Group& group, const std::string& operation, const Fold& fold) {
  const auto transfer = std::make_shared<RowTransfer>();
  auto& t = *transfer;
  t.operation = operation;
  t.group = group;
  Pole pole;
  Agreement agreement(group, operation);
  auto edge = Edge::none;
  size_t rows_at = 0, lo_at = 0, hi_at = 0, grad_at = 0;
  agreement.prepare([&] {
    t.dim = axis_of(given, dim_given, "dim", operation);
    agreement.same_but("x", given, t.dim);
    agreement.same("dim", t.dim);
    edge = edge_of(request.edge_name, operation);
    agreement.same("edge", request.edge_name);
    for (const auto reach : {request.lo, request.hi, request.before, request.after}) {
      HALCYON_CHECK(-kFarthest <= reach && reach <= kFarthest, operation,
                    "expected rows within {} of the axis' ends, got {}", kFarthest, reach);
    }
    if (request.kind == RowRequest::halo) {
      HALCYON_CHECK(request.before >= 0 && request.after >= 0, operation,
                    "expected a halo_width of no rows or more, got {} before and {} after",
                    request.before, request.after);
      agreement.same("halo_width before", request.before);
      agreement.same("halo_width after", request.after);
    } else {
      HALCYON_CHECK(request.lo <= request.hi, operation, "expected lo <= hi, got rows [{}, {})",
                    request.lo, request.hi);
    }
    if (edge == Edge::fold) {
      pole = pole_of(given, t.dim, fold, operation);
      t.fold_dim = pole.dim;
      t.sign = pole.sign;
      if (!pole.group || pole.group->size() == 1) t.fold_shift = given.size(pole.dim) / 2;
      agreement.same("fold_dim", pole.dim);
      agreement.same("size of fold_group", pole.group ? pole.group->size() : 1);
      agree_on_sign(agreement, pole.sign);
    }
    rows_at = agreement.each(given.size(t.dim));
    lo_at = agreement.each(request.lo);
    hi_at = agreement.each(request.hi);
    grad_at = agreement.each(given.requires_grad());
    if (request.kind == RowRequest::halo && agreement.can_attach(given)) {
      for (int64_t r = 0; r < group.size(); ++r) {
        const auto pieces =
            attached_to(r, group.rank(), given.size(t.dim), request, t, edge, given);
        std::vector<at::Tensor> rows;
        rows.reserve(pieces.size());
        for (const auto& piece : pieces)
          rows.push_back(given.narrow(t.dim, piece.first, piece.rows));
        if (!rows.empty()) agreement.attach(r, std::move(rows));
        t.went[r] = pieces;
      }
    }
  });
  agreement.post();
  agreement.finish();
  t.tag = agreement.tag();

  const auto starts = starts_of(agreement.of_all(rows_at));
  Wanted wanted;
  for (int64_t r = 0; r < group.size(); ++r) {
    wanted.push_back({interval_of(request, starts[r], starts[r + 1], starts.back(),
                                  agreement.of(r, lo_at), agreement.of(r, hi_at))});
  }
  plan_rows(t, starts, wanted, edge);
  if (request.kind == RowRequest::halo && agreement.can_attach(given)) {
    for (int64_t r = 0; r < group.size(); ++r) {
      auto& pieces = t.came[r] =
          attached_to(group.rank(), r, agreement.of(r, rows_at), request, t, edge, given);
      for (auto& piece : pieces) {
        piece.data =
            agreement.attached(r, sizes_with(given, t.dim, piece.rows), given.scalar_type());
      }
    }
  }
  auto out = move_rows(joined_to_backward(given, agreement.any(grad_at)), transfer);
  if (edge != Edge::fold || !pole.group || pole.group->size() == 1) return out;
  return rolled_over_ranks(out, t.dim, t.wanted, pole, operation);
}

at::Tensor gather_rows(const at::Tensor& x, int64_t lo, int64_t hi, int64_t dim, const Group& group,
                       const std::string& edge, const Fold& fold) {
  RowRequest request;
  request.kind = RowRequest::absolute;
  request.lo = lo;
  request.hi = hi;
  request.edge_name = edge;
  return gather_rows_as(x, request, dim, group, "gather_rows", fold);
}

at::Tensor halo_exchange(const at::Tensor& x, HaloWidth halo_width, int64_t dim, const Group& group,
                         const std::string& edge, const Fold& fold) {
  RowRequest request;
  request.kind = RowRequest::halo;
  request.before = halo_width.before;
  request.after = halo_width.after;
  request.edge_name = edge;
  return gather_rows_as(x, request, dim, group, "halo_exchange", fold);
}

at::Tensor trim(const at::Tensor& x, int64_t halo_before, int64_t halo_after, int64_t dim) {
  const auto axis = axis_of(x, dim, "dim", "trim");
  const auto rows = x.size(axis);
  HALCYON_CHECK(
      halo_before >= 0 && halo_after >= 0 && halo_before + halo_after <= rows, "trim",
      "expected no rows or more to be cut at each end, at most the {} of the axis, got {} "
      "before and {} after",
      rows, halo_before, halo_after);
  return x.narrow(axis, halo_before, rows - halo_before - halo_after);
}

}  // namespace halcyon::parallel
