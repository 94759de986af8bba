// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

// The file in which tuned choices outlive a process: the one that the environment variable
// HALCYON_TUNING_CACHE names; without it nothing is read or written. Readable JSON,
//   {"format": "halcyon tuning cache", "choices": {LIBRARY VERSION: {CPU MODEL, INSTRUCTION SET:
//     {OPERATION: {PROBLEM: {"choice": CANDIDATE, "milliseconds": TIME}}}}}}
// written under a temporary name and renamed, after merging with what other processes wrote, under
// a lock on a file beside it. A file that is not such JSON is warned of and replaced; one that
// cannot be written is warned of once.
namespace halcyon::tuning {

std::optional<std::string> stored_choice(const std::string& operation, const std::string& problem);
void store_choice(const std::string& operation, const std::string& problem,
                  const std::string& choice, double seconds);

}  // namespace halcyon::tuning
