// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/window.h"
#include "halcyon/parallel/row_plan.h"

namespace halcyon::parallel {

// Rows of a global axis on which neighborhood attention by itself gives the queries [start, stop)
// the windows that they have on the whole axis; they hold those queries. Empty for no queries. On a
// periodic axis the rows are unwrapped, and the axis of these rows alone is not periodic.
//
// For windows are clamped to the axis, by dilation class. A class that is cut off behind a window's
// end still clamps as the whole does: where the whole clamps, the window ends at the axis' end, and
// so do the rows. Rows begin at a multiple of dilation * stride, which keeps the classes and those
// who share a window.
Interval window_rows(const neighborhood::Axis& axis, int64_t start, int64_t stop);

}  // namespace halcyon::parallel
