// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "halcyon/ops/neighborhood/window.h"

namespace halcyon::neighborhood {

// Windows written out, (tokens, window), row-major over the axes in both.
struct Slots {
  at::Tensor key;       // int64: the key's number
  at::Tensor relative;  // int64: its place in a table of relative positions
  at::Tensor used;      // bool; an unused slot names key 0
};

Slots make_slots(const std::vector<Axis>& axes);  // on the CPU

// The same through torch's dispatcher, on the device of like.
Slots slots_of(const std::vector<Axis>& axes, const at::Tensor& like);

}  // namespace halcyon::neighborhood
