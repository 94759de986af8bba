// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "halcyon/model/healda_config.h"

namespace halcyon::bench {

// Operations of a forward, two for each multiplication and addition, by the names under which
// profilers see the parts; pairs of tokens in full, also where causality hides some. One sample.
std::vector<std::pair<std::string, double>> healda_flops(const HealDAConfig& config, int64_t rows);

}  // namespace halcyon::bench
