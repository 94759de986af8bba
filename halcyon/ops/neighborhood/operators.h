// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/backends.h"

namespace halcyon::neighborhood {

enum class Backend : int64_t { tiled, gemm, reference };

// Through torch's dispatcher (halcyon::_neighborhood), where autograd, tracing and counters stand.
Output dispatched(const Inputs& in, Backend backend);

}  // namespace halcyon::neighborhood
