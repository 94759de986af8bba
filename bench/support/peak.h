// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/ScalarType.h>

namespace halcyon::bench {

// What this machine reaches with at::get_num_threads() threads, measured, not looked up.
struct Peak {
  double fp32, bf16;  // FLOP/s of the largest matrix products through ATen
  double bandwidth;   // bytes/s of a triad a = b + s * c that fits no cache

  // In mixed precision nothing forbids fp32, the faster one where bf16 is emulated.
  double flops(at::ScalarType type) const {
    return type == at::kBFloat16 && bf16 > fp32 ? bf16 : fp32;
  }
};

// Measured at the first call, about three seconds.
const Peak& machine_peak();

}  // namespace halcyon::bench
