// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "halcyon/ops/neighborhood/plan.h"

// How the backward divides a problem between threads so that every gradient has one writer: a share
// owns a stretch of one axis of a dilation group, queries and keys alike.
namespace halcyon::neighborhood {

struct Share {
  Item item;  // targets and keys it owns; sources that any part meets
  int axis;   // on which it is a part of its group
  // Tiles in the order in which they run. The owned queries; before and behind them, those others
  // that meet owned keys, clipped to these: they are computed by two shares.
  std::vector<Item> parts;
  std::size_t owned;  // which part

  bool owns(int64_t p0, int64_t p1) const {
    const auto inside = [&](std::size_t a, int64_t p) {
      return p >= item.target[a].begin && p < item.target[a].end;
    };
    return inside(0, p0) && inside(1, p1);
  }
};

class Shares {
 public:
  // At least about min_shares of a head, if it is long enough; of a single row, shares of at most
  // about most_places, as no ring serves there.
  Shares(const Axes& axes, int64_t min_shares, int64_t most_places);

  const Plan& plan() const { return plan_; }
  const std::vector<Share>& shares() const { return shares_; }

 private:
  Plan plan_;
  std::vector<Share> shares_;
};

}  // namespace halcyon::neighborhood
