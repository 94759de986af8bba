// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace halcyon {

// bfloat16 in memory, for kernels that include nothing of torch.
struct Bf16 {
  uint16_t bits;
};

// Two of them side by side, the lower one first: what processors multiply and add at once.
struct Bf16Pair {
  uint32_t bits;
};

}  // namespace halcyon
