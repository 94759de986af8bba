// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/sphere/pixel_lists.h"

namespace halcyon::neighborhood {

// Of the sphere's pixels cut into consecutive runs, what one run sees of the others and they of it:
// int64 pixel numbers in the window's order, ascending.
struct PixelReach {
  at::Tensor seen;                   // all that the run sees, its own among them
  std::vector<at::Tensor> seen_own;  // by run: the run's own pixels that the other sees
};

// starts: where each run begins, and the end of the last. The window has no region. Kept for the
// process as pixel_lists' are.
std::shared_ptr<const PixelReach> pixel_reach(const PixelWindow& window,
                                              const std::vector<int64_t>& starts, int64_t run);

}  // namespace halcyon::neighborhood
