// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <variant>

#include "halcyon/parallel/group.h"

// Rows of an axis that is cut over the ranks of a group into consecutive intervals, in rank order,
// of any lengths, also zero. Collective, differentiable any number of times, the backward the exact
// adjoint; of any dtype, strides and device that the group moves. The forward is bitwise what one
// process has.
namespace halcyon::parallel {

// Rows before and after; one number is both.
struct HaloWidth {
  HaloWidth(int64_t width) : before(width), after(width) {}  // NOLINT(google-explicit-constructor)
  HaloWidth(int64_t rows_before, int64_t rows_after) : before(rows_before), after(rows_after) {}
  int64_t before, after;
};

// How rows beyond a pole are seen (edge "fold"): rolled by half of fold_dim and times sign, a
// number or a tensor that broadcasts against x, with one entry along dim and fold_dim. If the
// longitudes are sharded too, group is the one along them.
struct Fold {
  int64_t dim = -1;
  std::optional<Group> group;
  std::variant<double, at::Tensor> sign = 1.0;
};

// Rows [lo, hi) of the global axis, this rank's own choice; they may reach beyond both ends, and
// lo == hi is legal. edge: "zero", "periodic", "reflect", "fold" or "none" (row_plan.h).
at::Tensor gather_rows(const at::Tensor& x, int64_t lo, int64_t hi, int64_t dim = -2,
                       const Group& group = {}, const std::string& edge = "zero",
                       const Fold& fold = {});

// This rank's rows with those before and after them, [start - before, stop + after), of any width,
// the same on every rank.
at::Tensor halo_exchange(const at::Tensor& x, HaloWidth halo_width, int64_t dim = -2,
                         const Group& group = {}, const std::string& edge = "zero",
                         const Fold& fold = {});

// x without its first halo_before and last halo_after rows; no communication.
at::Tensor trim(const at::Tensor& x, int64_t halo_before, int64_t halo_after, int64_t dim = -2);

}  // namespace halcyon::parallel
