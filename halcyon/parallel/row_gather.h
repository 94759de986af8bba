// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "halcyon/parallel/row_plan.h"
#include "halcyon/parallel/rows.h"

// For the operations of this room that stand on gather_rows under their own name.
namespace halcyon::parallel {

struct RowRequest {
  enum Kind {
    absolute,   // rows [lo, hi) of the global axis
    halo,       // this rank's rows with before and after
    half_back,  // as many as this rank has, half the axis before them
  };
  Kind kind = absolute;
  int64_t lo = 0, hi = 0;
  int64_t before = 0, after = 0;
  std::string edge_name = "zero";
};

at::Tensor gather_rows_as(const at::Tensor& x, const RowRequest& request, int64_t dim,
                          const Group& group, const std::string& operation, const Fold& fold = {});

}  // namespace halcyon::parallel
