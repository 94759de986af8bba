// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <vector>

#include "halcyon/ops/neighborhood/plan.h"

namespace halcyon::neighborhood {

// Which rows of sources an item holds at the moment: each comes when a tile first needs it, into
// the place that Item::row gives it, and goes when another needs that place.
class HeldRows {
 public:
  explicit HeldRows(const Item& item)
      : item_(item), held_(static_cast<std::size_t>(item.rows()), kNone) {}

  // Calls come(p0, p1, row) for each row of these that is not held, before it go(p0, p1, row) for
  // the one in its place.
  template <class Come, class Go>
  void require(Range planes, Range rows, const Come& come, const Go& go) {
    for (int64_t p0 = planes.begin; p0 < planes.end; ++p0) {
      for (int64_t p1 = rows.begin; p1 < rows.end; ++p1) {
        const int64_t row = item_.row(p0, p1), position = item_.ring == 0 ? p0 : p1;
        int64_t& held = held_[static_cast<std::size_t>(row)];
        if (held == position) continue;
        drop(row, go);
        come(p0, p1, row);
        held = position;
      }
    }
  }
  template <class Go>
  void drop_all(const Go& go) {
    for (int64_t row = 0; row < item_.rows(); ++row) drop(row, go);
  }

 private:
  template <class Go>
  void drop(int64_t row, const Go& go) {
    int64_t& held = held_[static_cast<std::size_t>(row)];
    if (held == kNone) return;
    const int64_t plane = row / item_.stored[1], place = row % item_.stored[1];
    if (item_.ring == 0) {
      go(held, item_.source[1].begin + place, row);
    } else {
      go(item_.source[0].begin + plane, held, row);
    }
    held = kNone;
  }

  static constexpr int64_t kNone = std::numeric_limits<int64_t>::min();
  const Item& item_;
  std::vector<int64_t> held_;
};

}  // namespace halcyon::neighborhood
