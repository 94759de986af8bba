// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/shares.h"

#include <algorithm>

namespace halcyon::neighborhood {
namespace {

// The axis along which a ring of rows holds the least, or the only axis.
int axis_of(const Axes& axes) {
  if (axes[0].length == 1 && axes[1].length == 1) return 2;
  const auto size = [&](std::size_t a) {
    return (axes[a].length + axes[a].dilation - 1) / axes[a].dilation;
  };
  const auto in_ring = [&](std::size_t a, int64_t step) {
    return std::min(size(a), axes[a].kernel + step - 1 + 2 * (axes[a].stride - 1));
  };
  const bool planes = size(0) > 1 && in_ring(0, 1) * size(1) < size(0) * in_ring(1, kMaxVectors);
  return planes ? 0 : 1;
}

std::array<int64_t, kMaxAxes> extents(const Axes& axes, int64_t min_shares, int64_t most_places) {
  std::array<int64_t, kMaxAxes> extent;
  int64_t groups = 1;
  for (std::size_t a = 0; a < kMaxAxes; ++a) {
    extent[a] = axes[a].length;
    groups *= axes[a].dilation;
  }
  const auto cut = static_cast<std::size_t>(axis_of(axes));
  const int64_t whole = (axes[cut].length + axes[cut].dilation - 1) / axes[cut].dilation;
  int64_t parts = (min_shares + groups - 1) / groups;
  if (cut == 2) parts = std::max(parts, whole / std::max(most_places, 4 * axes[2].kernel));
  // a part shorter than its borders would mostly repeat its neighbours' work
  const int64_t unit = kLeastTargets[cut];
  const int64_t least = std::max(2 * axes[cut].kernel, unit);
  const int64_t length = std::max((whole + parts - 1) / std::max<int64_t>(parts, 1), least);
  extent[cut] = (length + unit - 1) / unit * unit;
  return extent;
}

Range hull(Range a, Range b) {
  return {std::min(a.begin, b.begin), std::max(a.end, b.end)};
}

// The queries beyond [owned.begin, owned.end) that see one of these keys; on a periodic axis
// images.
std::pair<Range, Range> borders(const Axis& axis, const Item& item, std::size_t a) {
  const Range owned = item.target[a];
  if (axis.periodic) {
    const int64_t right = axis.kernel - 1 - axis.kernel / 2;
    return {{owned.begin - right, owned.begin}, {owned.end, owned.end + axis.kernel / 2}};
  }
  int64_t first = owned.begin, last = owned.end;
  while (first > 0) {
    const Span span = item.span(a, first - 1);
    if (span.start + span.count <= owned.begin) break;
    --first;
  }
  while (last < item.size[a] && item.span(a, last).start < owned.end) ++last;
  return {{first, owned.begin}, {owned.end, last}};
}

Share share_of(const Axes& axes, const Item& owned) {
  const int cut = axis_of(axes);
  const auto a = static_cast<std::size_t>(cut);
  Share share{owned, cut, {}, 0};
  for (std::size_t axis = 0; axis < kMaxAxes; ++axis)
    share.item.source[axis] = hull(owned.source[axis], owned.target[axis]);
  const auto [before, behind] = borders(axes[a], owned, a);
  const auto part = [&](Range queries, bool clipped) {
    if (queries.size() <= 0) return;
    Item item = share.item;
    item.target[a] = queries;
    if (clipped) {
      item.clipped = cut;
      item.clip = owned.target[a];
    }
    share.parts.push_back(item);
  };
  part(before, true);
  share.owned = share.parts.size();
  part(owned.target[a], false);
  part(behind, true);
  keep_in_ring(share.item, share.parts, cut == 0 ? 0 : 1);
  for (auto& item : share.parts) {
    item.ring = share.item.ring;
    item.stored = share.item.stored;
  }
  return share;
}

}  // namespace

Shares::Shares(const Axes& axes, int64_t min_shares, int64_t most_places)
    : plan_(axes, Plan::queries, extents(axes, min_shares, most_places)) {
  for (const auto& item : plan_.items()) shares_.push_back(share_of(axes, item));
}

}  // namespace halcyon::neighborhood
