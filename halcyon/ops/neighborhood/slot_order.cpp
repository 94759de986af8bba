// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/slot_order.h"

#include <algorithm>

namespace halcyon::neighborhood {

SlotOrder::SlotOrder(const Plan& plan, const Item& item, int lanes, int64_t capacity)
    : plan_(plan), item_(item), lanes_(lanes), capacity_(capacity) {}

const Tile& SlotOrder::operator()(const TileTargets& targets, const Tile& tile) {
  const auto& axes = plan_.axes();
  const auto span = [&](std::size_t axis, int64_t target) -> const Span& {
    return (*item_.band[axis])[static_cast<std::size_t>(target)];
  };
  const auto row_of = [&](int v) { return targets.first[1] + (targets.stacked ? v : 0); };
  const auto block_of = [&](int v) {
    return targets.first[2] + (targets.stacked ? 0 : v * lanes_);
  };
  const auto& outer = span(0, targets.first[0]);
  tile_ = tile;
  tile_.capacity = capacity_;
  full_ = outer.count == axes[0].kernel &&
          *std::min_element(tile.lanes.count, tile.lanes.count + lanes_) == axes[2].kernel;
  for (int v = 0; v < tile.vectors; ++v)
    full_ = full_ && span(1, row_of(v)).count == axes[1].kernel;

  runs_.clear();
  const int64_t width = item_.source[1].size();
  for (const Run* run = tile.runs; run != tile.runs + tile.n_runs; ++run) {
    // rows of a run follow each other without gaps: those of the window do where they are whole
    const int64_t at_once = run->shifts == axes[2].kernel ? run->rows : 1;
    for (int64_t row = 0; row < run->rows; row += at_once) {
      Run part = *run;
      part.row += row;
      part.rows = at_once;
      const int64_t p0 = part.row / width + item_.source[0].begin,
                    p1 = part.row % width + item_.source[1].begin,
                    p2 = part.element + item_.source[2].begin;
      for (int v = part.first_vector; v < part.first_vector + part.vectors; ++v) {
        part.slot[v] =
            ((p0 - outer.start) * axes[1].kernel + p1 - span(1, row_of(v)).start) * axes[2].kernel +
            p2 - span(2, block_of(v)).start;
        part.bias[v] += row * tile.bias_row;
      }
      runs_.push_back(part);
    }
  }
  tile_.runs = runs_.data();
  tile_.n_runs = static_cast<int64_t>(runs_.size());
  return tile_;
}

const Tile& SlotOrder::behind(int64_t count) {
  behind_ = {};
  behind_.vectors = tile_.vectors;
  behind_.capacity = capacity_;
  behind_.lanes.mode = Lanes::permuted;
  std::fill_n(behind_.lanes.count, kMaxLanes, static_cast<int32_t>(count));
  more_ = {};
  more_.rows = 1;
  more_.shifts = count;
  more_.vectors = tile_.vectors;
  std::fill_n(more_.slot, kMaxVectors, window_size(plan_.axes()));
  behind_.runs = &more_;
  behind_.n_runs = 1;
  return behind_;
}

}  // namespace halcyon::neighborhood
