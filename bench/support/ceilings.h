// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace halcyon::bench {

// What the arithmetic units give on registers, whatever a library makes of them: no kernel computes
// faster. FLOP/s with at::get_num_threads() threads; 0 where the processor lacks the instruction.
struct Ceilings {
  double fma_avx2, fma_avx512;  // multiply-adds in fp32
  double pairs_bf16;            // vdpbf16ps
};

// Measured at the first call, about a second.
const Ceilings& machine_ceilings();

}  // namespace halcyon::bench
