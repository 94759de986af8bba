// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "halcyon/parallel/group.h"

namespace halcyon::test {

// f on every rank of a gloo group of this size, each rank a thread of this process with connections
// of its own; gpus: and a GPU. What a rank throws is thrown again here, the lowest rank's first,
// when all have ended.
void on_ranks(int64_t size, const std::function<void(const parallel::Group&)>& f,
              double timeout_seconds = 60, bool gpus = false);

}  // namespace halcyon::test
