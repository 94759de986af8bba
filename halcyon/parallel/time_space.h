// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// How one tensor (b, t, X, ...) lies on the ranks of a group: either its frames are cut (every rank
// has all pixels of some frames) or its pixels are (all frames of some pixels), in consecutive
// intervals of any lengths in rank order. All ranks have agreed on it (agreement.h).
struct TimeSpace {
  std::string operation;  // for errors
  Group group;
  int64_t tag = 0;                   // of its messages
  std::vector<int64_t> time, space;  // frames and pixels of each rank
};

// From cut frames to cut pixels, or back.
enum class Way { to_space, to_time };

// x as it lies after one exchange: (b, time[rank], X, ...) to (b, T, space[rank], ...) or back. All
// messages are posted at once; blocks that are whole in memory are sent from x and received into
// the result without a copy. Differentiable any number of times: each way is the other's adjoint.
// Messages between two ranks are matched in order, so all ranks make the same calls of one layout.
at::Tensor move(const at::Tensor& x, Way way, const std::shared_ptr<const TimeSpace>& layout);

// The same without gradients into out, which is contiguous.
void move_into(const at::Tensor& out, const at::Tensor& x, Way way, const TimeSpace& layout);

}  // namespace halcyon::parallel
