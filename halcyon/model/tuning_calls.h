// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "halcyon/model/healda_config.h"

namespace halcyon {

// Calls of a model in which the autotuner meets the problems that training or analyses will meet:
// every batch with every number of observations.
struct TuningCalls {
  std::vector<int64_t> batches{1};
  std::vector<int64_t> observations{100, 10'000, 1'000'000};  // of a whole batch, anywhere
  bool training = false;                                      // the backward as well
};

// Makes the calls, with random weights and observations; report(done, all) after each. One block
// stands for all of the model's, which have the same shapes: the production model needs 0.3 GB of
// weights here, not 6. Throws Error(argument) for a
// configuration that no model has and for a batch below 1.
void make_tuning_calls(HealDAConfig config, const TuningCalls& calls,
                       const std::function<void(int64_t done, int64_t all)>& report = {});

}  // namespace halcyon
