// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace halcyon::training {

// Linear warm-up, then half a cosine (Loshchilov and Hutter 2017, without restarts) down to
// final_fraction of the peak.
struct Schedule {
  double peak = 1e-3;
  int64_t warmup = 0;  // steps; the first one already learns: peak / warmup
  int64_t steps = 1;   // of the whole run
  double final_fraction = 0;

  double rate(int64_t step) const;  // 0-based
};

}  // namespace halcyon::training
