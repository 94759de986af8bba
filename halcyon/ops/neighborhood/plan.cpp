// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/plan.h"

#include <algorithm>

#include "halcyon/base/error.h"

namespace halcyon::neighborhood {
namespace {

Range sources(const Band& band, Range target) {
  const Span &first = band[static_cast<std::size_t>(target.begin)],
             &last = band[static_cast<std::size_t>(target.end - 1)];
  return {first.start, last.start + last.count};
}

// The most targets of an item when there are to be so many items.
int64_t most_targets(const Axes& axes, int64_t min_items) {
  int64_t tokens = 1;
  for (const auto& axis : axes) tokens *= axis.length;
  return std::max<int64_t>(tokens / std::max<int64_t>(min_items, 1), 1);
}

bool can_halve(const Item& item, std::size_t axis) {
  return item.target[axis].size() >= 2 * kLeastTargets[axis];
}

// f(item) of either half of its targets on the axis; their sources are still the whole's.
template <class F>
void each_half(Item item, std::size_t axis, const F& f) {
  const auto whole = item.target[axis];
  const int64_t least = kLeastTargets[axis];
  const int64_t middle = whole.begin + (whole.size() / 2 + least - 1) / least * least;
  for (const Range half : {Range{whole.begin, middle}, {middle, whole.end}}) {
    item.target[axis] = half;
    f(item);
  }
}

// The most rows of an axis that are met at or after a step, counted from the last met before it.
int64_t ring_size(const std::vector<Item>& parts, std::size_t axis) {
  std::vector<Range> met;
  for (const auto& part : parts) {
    const int64_t step = axis == 1 ? rows_of_step(part) : 1;
    for (int64_t t = part.target[axis].begin; t < part.target[axis].end; t += step) {
      const Span first = part.span(axis, t),
                 last = part.span(axis, std::min(t + step, part.target[axis].end) - 1);
      met.push_back({first.start, last.start + last.count});
    }
  }
  int64_t most = 1;
  for (std::size_t i = met.size(); i-- > 0;) {
    if (i + 1 < met.size()) met[i].begin = std::min(met[i].begin, met[i + 1].begin);
  }
  int64_t end = met.empty() ? 0 : met[0].end;
  for (const auto& range : met) {
    end = std::max(end, range.end);
    most = std::max(most, end - range.begin);
  }
  return most;
}

}  // namespace

Span Item::span(std::size_t axis, int64_t t) const {
  const Band& spans = *band[axis];
  Span span;
  if (t >= 0 && t < size[axis]) {
    span = spans[static_cast<std::size_t>(t)];
  } else {
    // the image of a target beyond the end of a periodic axis
    span = {spans[0].start + t, spans[0].count};
  }
  if (static_cast<int>(axis) != clipped) return span;
  const int64_t begin = std::clamp(span.start, clip.begin, clip.end);
  return {begin, std::clamp(span.start + span.count, begin, std::max(begin, clip.end)) - begin};
}

void keep_in_ring(Item& item, const std::vector<Item>& parts, int axis) {
  const std::array<int64_t, 2> all{item.source[0].size(), item.source[1].size()};
  const int64_t planes = std::min(ring_size(parts, 0), all[0]),
                rows = std::min(ring_size(parts, 1), all[1]);
  item.ring = axis >= 0 ? axis : planes * all[1] < all[0] * rows ? 0 : 1;
  item.stored = item.ring == 0 ? std::array{planes, all[1]} : std::array{all[0], rows};
}

template <class F>
void Plan::each_group(const F& f) {
  for (auto& of_axis : bands_) {
    for (auto& entry : of_axis) entry.first = -1;
  }
  Item item;
  for (int64_t r0 = 0; r0 < axes_[0].dilation; ++r0) {
    for (int64_t r1 = 0; r1 < axes_[1].dilation; ++r1) {
      for (int64_t r2 = 0; r2 < axes_[2].dilation; ++r2) {
        item.residue = {r0, r1, r2};
        for (std::size_t a = 0; a < kMaxAxes; ++a) {
          item.size[a] = group_size(axes_[a], item.residue[a]);
          item.band[a] = &band(static_cast<int>(a), item.size[a]);
          item.target[a] = {0, item.size[a]};
        }
        f(item);
      }
    }
  }
}

Axes three_axes(const std::vector<Axis>& axes) {
  Axes three;
  std::copy(axes.begin(), axes.end(), three.end() - static_cast<std::ptrdiff_t>(axes.size()));
  return three;
}

Plan::Plan(const Axes& axes, Targets targets, int64_t bytes, int64_t max_bytes, int64_t min_items)
    : axes_(axes), targets_(targets) {
  const int64_t max_targets = most_targets(axes, min_items);
  each_group([&](const Item& item) { cut(item, bytes, max_bytes, max_targets); });
}

Plan::Plan(const Axes& axes, const Rings& rings) : axes_(axes), targets_(queries) {
  const int64_t max_targets = most_targets(axes, rings.min_items);
  each_group([&](const Item& item) { cut(item, rings, max_targets); });
}

Plan::Plan(const Axes& axes, Targets targets, const std::array<int64_t, kMaxAxes>& extent)
    : axes_(axes), targets_(targets) {
  each_group([&](Item item) {
    const auto whole = item.target;
    const auto stretch = [&](std::size_t a, int64_t begin) {
      item.target[a] = {begin, std::min(begin + extent[a], whole[a].end)};
      item.source[a] = sources(*item.band[a], item.target[a]);
    };
    for (int64_t i0 = 0; i0 < whole[0].end; i0 += extent[0]) {
      stretch(0, i0);
      for (int64_t i1 = 0; i1 < whole[1].end; i1 += extent[1]) {
        stretch(1, i1);
        for (int64_t i2 = 0; i2 < whole[2].end; i2 += extent[2]) {
          stretch(2, i2);
          item.stored = {item.source[0].size(), item.source[1].size()};
          items_.push_back(item);
        }
      }
    }
  });
}

const Band& Plan::band(int axis, int64_t n) {
  for (auto& [size, band] : bands_[static_cast<std::size_t>(axis)]) {
    if (size == n) return band;
    if (size < 0) {
      const auto& a = axes_[static_cast<std::size_t>(axis)];
      band = targets_ == queries ? query_band(a, n) : key_band(a, n);
      size = n;
      return band;
    }
  }
  HALCYON_ASSERT(!"a third size of group");
  return bands_[0][0].second;
}

int64_t Plan::meet(Item& item) {
  int64_t targets = 1;
  for (std::size_t a = 0; a < kMaxAxes; ++a) {
    item.source[a] = sources(*item.band[a], item.target[a]);
    targets *= item.target[a].size();
  }
  return targets;
}

// Halves the targets until there are enough items, first along the ring, where that costs the
// least, and until the rows fit, along another axis.
void Plan::cut(Item item, const Rings& rings, int64_t max_targets) {
  const int64_t targets = meet(item);
  keep_in_ring(item, {item});
  const auto halve = [&](std::size_t a) {
    each_half(item, a, [&](const Item& half) { cut(half, rings, max_targets); });
  };
  const auto ring = static_cast<std::size_t>(item.ring), other = 1 - ring;
  if (item.rows() * item.source[2].size() * rings.bytes > rings.max_bytes) {
    // sources a target on either axis, which grow by their borders
    if (can_halve(item, other) &&
        (!can_halve(item, 2) || item.source[other].size() * item.target[2].size() <
                                    item.source[2].size() * item.target[other].size()))
      return halve(other);
    if (can_halve(item, 2)) return halve(2);
  }
  if (targets > max_targets) {
    for (const std::size_t a : {ring, other, std::size_t{2}}) {
      if (can_halve(item, a)) return halve(a);
    }
  }
  items_.push_back(item);
}

// Halves the targets along the longest axis, first those whose rows lie farthest apart, until the
// item is small enough.
void Plan::cut(Item item, int64_t bytes, int64_t max_bytes, int64_t max_targets) {
  const int64_t targets = meet(item);
  item.stored = {item.source[0].size(), item.source[1].size()};
  if (targets > max_targets || item.rows() * item.source[2].size() * bytes > max_bytes) {
    for (std::size_t a = 0; a < kMaxAxes; ++a) {
      if (!can_halve(item, a)) continue;
      return each_half(item, a,
                       [&](const Item& half) { cut(half, bytes, max_bytes, max_targets); });
    }
  }
  items_.push_back(item);
}

}  // namespace halcyon::neighborhood
