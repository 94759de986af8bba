// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "halcyon/ops/neighborhood/plan.h"

namespace halcyon::neighborhood {

inline int64_t window_size(const Axes& axes) {
  int64_t size = 1;
  for (const auto& axis : axes) size *= axis.kernel;
  return size;
}

// A tile of queries whose scores stand as in the tensor of the unfused operators: row-major over
// the whole window, places for slots that a query does not use included.
class SlotOrder {
 public:
  // capacity: scores of a query, window_size() and what is to follow
  SlotOrder(const Plan& plan, const Item& item, int lanes, int64_t capacity);

  // tile: the only step of a tile of queries. The result holds until the next call.
  const Tile& operator()(const TileTargets& targets, const Tile& tile);
  // Whether every lane of the last tile uses every slot.
  bool full() const { return full_; }
  // Lanes of the same tile, but each with the same sources: count of them in a box of one row,
  // behind the window.
  const Tile& behind(int64_t count);

 private:
  const Plan& plan_;
  const Item& item_;
  int lanes_;
  int64_t capacity_;
  bool full_ = true;
  std::vector<Run> runs_;
  Run more_;
  Tile tile_, behind_;
};

}  // namespace halcyon::neighborhood
