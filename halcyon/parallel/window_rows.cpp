// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/window_rows.h"

#include <algorithm>

namespace halcyon::parallel {
namespace {

// First and last position of its dilation group that the window of a query depends on.
Interval positions(const neighborhood::Axis& axis, int64_t query) {
  const auto g = query / axis.dilation, n = group_size(axis, query % axis.dilation);
  const auto span = window(axis, g, n);
  auto last = span.start + span.count - 1;
  if (axis.causal) {
    // the window's start follows from the last query that shares it
    last = std::max(last, std::min(g / axis.stride * axis.stride + axis.stride - 1, n - 1));
  }
  return {span.start, last};
}

}  // namespace

Interval window_rows(const neighborhood::Axis& axis, int64_t start, int64_t stop) {
  if (start >= stop) return {start, start};
  const auto least = axis.kernel * axis.dilation;  // that attention accepts
  if (axis.periodic) {
    const auto before = axis.kernel / 2, after = axis.kernel - 1 - before;
    const auto lo = start - before * axis.dilation;
    return {lo, std::max(stop + after * axis.dilation, lo + least)};
  }
  auto lo = start, hi = stop;
  // windows never move back: the first queries of each class reach lowest, the last ones highest
  for (auto query = start; query < std::min(start + axis.dilation, stop); ++query)
    lo = std::min(lo, positions(axis, query).lo * axis.dilation + query % axis.dilation);
  for (auto query = std::max(start, stop - axis.dilation); query < stop; ++query)
    hi = std::max(hi, positions(axis, query).hi * axis.dilation + query % axis.dilation + 1);
  const auto step = axis.dilation * axis.stride;
  lo = lo / step * step;
  hi = std::min(std::max(hi, lo + least), axis.length);
  lo = std::min(lo, (hi - least) / step * step);
  return {lo, hi};
}

}  // namespace halcyon::parallel
