// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "halcyon/ops/neighborhood/cpu_kernel.h"
#include "halcyon/ops/neighborhood/window.h"

// Cuts a problem into items of work, and an item into the tiles that the kernels take.
namespace halcyon::neighborhood {

// Always three axes; missing ones stand first, with length and kernel 1.
using Axes = std::array<Axis, kMaxAxes>;
Axes three_axes(const std::vector<Axis>& axes);

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// Some targets of one dilation group, in positions of the group, and the sources that they meet
// (unwrapped on a periodic axis).
struct Item {
  std::array<int64_t, kMaxAxes> residue, size;  // of the group
  std::array<Range, kMaxAxes> target, source;
  std::array<const Band*, kMaxAxes> band;
  // Sources on axis `clipped` outside of clip are left out.
  int clipped = -1;
  Range clip{0, 0};
  // Planes and rows of sources that are kept at a time; on the axis `ring` those of lower positions
  // give way to those of higher ones as the tiles move along it.
  int ring = -1;
  std::array<int64_t, 2> stored{};

  // What the target at position t of an axis meets.
  Span span(std::size_t axis, int64_t t) const;
  int64_t rows() const { return stored[0] * stored[1]; }
  // Where the row (p0, p1) of sources is kept.
  int64_t row(int64_t p0, int64_t p1) const { return place(0, p0) * stored[1] + place(1, p1); }
  int64_t place(int axis, int64_t p) const {
    const auto a = static_cast<std::size_t>(axis);
    if (axis != ring) return p - source[a].begin;
    const int64_t m = p % stored[a];
    return m < 0 ? m + stored[a] : m;
  }
};

class Plan {
 public:
  enum Targets { queries, keys };

  // bytes: what a source costs in a packed box; items hold about max_bytes and are at least
  // min_items where the problem is large enough.
  Plan(const Axes& axes, Targets targets, int64_t bytes, int64_t max_bytes, int64_t min_items);
  // Items whose rows of sources are kept in a ring.
  struct Rings {
    int64_t bytes, max_bytes, min_items;  // as above
  };
  Plan(const Axes& axes, const Rings& rings);
  // Items of at most this many targets on each axis.
  Plan(const Axes& axes, Targets targets, const std::array<int64_t, kMaxAxes>& extent);
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const std::vector<Item>& items() const { return items_; }
  const Axes& axes() const { return axes_; }
  Targets targets() const { return targets_; }

 private:
  const Band& band(int axis, int64_t n);
  // Calls f with each dilation group as one item, without its sources.
  template <class F>
  void each_group(const F& f);
  void cut(Item item, int64_t bytes, int64_t max_bytes, int64_t max_targets);
  void cut(Item item, const Rings& rings, int64_t max_targets);
  // Sets the sources of the item; returns its number of targets.
  static int64_t meet(Item& item);

  Axes axes_;
  Targets targets_;
  // by axis and size of the group, of which there are two at most; -1: none yet
  std::array<std::array<std::pair<int64_t, Band>, 2>, kMaxAxes> bands_;
  std::vector<Item> items_;
};

// Targets on each axis below which an item is not cut, as they would no longer fill tiles.
inline constexpr std::array<int64_t, kMaxAxes> kLeastTargets{1, kMaxVectors,
                                                             kMaxVectors* kMaxLanes};

// Targets along axis 1 that a step of the tiles takes.
inline int64_t rows_of_step(const Item& item) {
  return item.target[1].size() > 1 ? kMaxVectors : 1;
}
// Sets what is stored, the least that serves the parts one after another, in a ring along this axis
// or, with -1, along the better one.
void keep_in_ring(Item& item, const std::vector<Item>& parts, int axis = -1);

// One tile and the steps of its softmax.
struct TileTargets {
  std::array<int64_t, kMaxAxes> first;  // position of vector 0, lane 0
  bool stacked;                         // vectors are consecutive rows, else consecutive blocks
  int32_t vectors;
  int64_t valid;  // lanes; the others repeat the last
};

class Tiler {
 public:
  Tiler(const Plan& plan, const Item& item, int lanes, int64_t capacity);

  // Calls f(TileTargets, std::vector<Tile>: the steps) for every tile of the item, along the ring.
  template <class F>
  void each(const F& f) {
    each_row([&](int64_t i0, int64_t i1) { each_of_row(i0, i1, f); });
  }

  // Calls f(i0, i1) for every row of tiles.
  template <class F>
  void each_row(const F& f) {
    const Range planes = item_.target[0], rows = item_.target[1];
    const int64_t step = rows_of_step(item_);
    if (item_.ring == 1) {
      for (int64_t i1 = rows.begin; i1 < rows.end; i1 += step) {
        for (int64_t i0 = planes.begin; i0 < planes.end; ++i0) f(i0, i1);
      }
    } else {
      for (int64_t i0 = planes.begin; i0 < planes.end; ++i0) {
        for (int64_t i1 = rows.begin; i1 < rows.end; i1 += step) f(i0, i1);
      }
    }
  }
  template <class F>
  void each_of_row(int64_t i0, int64_t i1, const F& f) {
    for (int64_t i2 = item_.target[2].begin; i2 < item_.target[2].end;) {
      const auto targets = build({i0, i1, i2});
      f(targets, steps_);
      i2 += targets.valid + (targets.stacked ? 0 : (targets.vectors - 1) * lanes_);
    }
  }

  // The planes and rows of sources that a row of tiles meets.
  Range planes(int64_t i0) const;
  Range rows(int64_t i1) const;

 private:
  TileTargets build(const std::array<int64_t, kMaxAxes>& first);
  Lanes lanes_at(int64_t i2, int64_t valid) const;
  void add_rows(const TileTargets& targets);
  void add_blocks(const TileTargets& targets);
  void add(Run run, int64_t rows);
  void close();
  int64_t bias_of_row(const TileTargets& targets, int vector, int64_t p0, int64_t p1) const;

  const Plan& plan_;
  const Item& item_;
  int lanes_;
  int64_t capacity_;
  int64_t sign_;  // relative position is sign * (source - target)
  Tile tile_;     // common to the steps
  int64_t shifts_ = 0;
  std::vector<Run> runs_;
  std::vector<int64_t> first_run_;
  std::vector<Tile> steps_;
};

}  // namespace halcyon::neighborhood
