// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/window.h"

#include <algorithm>

namespace halcyon::neighborhood {

Span window(const Axis& axis, int64_t g, int64_t n) {
  if (axis.periodic) return {g - axis.kernel / 2, axis.kernel};
  const int64_t leader = g / axis.stride * axis.stride;
  if (axis.causal) {
    const int64_t last = std::min(leader + axis.stride - 1, n - 1);
    const int64_t start = std::max<int64_t>(last - axis.kernel + 1, 0);
    return {start, g - start + 1};
  }
  const int64_t centre = std::min(leader + axis.stride / 2, n - 1);
  return {std::clamp<int64_t>(centre - axis.kernel / 2, 0, n - axis.kernel), axis.kernel};
}

Band query_band(const Axis& axis, int64_t n) {
  Band band;
  band.reserve(static_cast<std::size_t>(n));
  for (int64_t g = 0; g < n; ++g) band.push_back(window(axis, g, n));
  return band;
}

Band key_band(const Axis& axis, int64_t n) {
  Band band;
  band.reserve(static_cast<std::size_t>(n));
  if (axis.periodic) {
    // the query g sees g - K/2, ..., g - K/2 + K - 1
    for (int64_t key = 0; key < n; ++key)
      band.push_back({key - (axis.kernel - 1 - axis.kernel / 2), axis.kernel});
    return band;
  }
  // starts and ends of the windows never decrease: two fingers
  int64_t low = 0, high = 0;
  for (int64_t key = 0; key < n; ++key) {
    const auto ends_before = [&](int64_t g) {
      const auto span = window(axis, g, n);
      return span.start + span.count <= key;
    };
    while (low < n && ends_before(low)) ++low;
    while (high < n && window(axis, high, n).start <= key) ++high;
    band.push_back({std::min(low, high), std::max<int64_t>(high - low, 0)});
  }
  return band;
}

}  // namespace halcyon::neighborhood
