// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

// The file in which tuned choices outlive a process: the one that a program names, else that of the
// environment variable HALCYON_TUNING_CACHE; without either nothing is read or written. Readable
// JSON (docs/tuning.md),
//   {"format": "halcyon tuning cache", "choices": {LIBRARY VERSION: {CPU MODEL, INSTRUCTION SET:
//     {OPERATION: {PROBLEM: {"choice": CANDIDATE, "milliseconds": {CANDIDATE: TIME, ...}}}}}}}
// written under a temporary name and renamed, after merging with what other processes wrote, under
// a lock on a file beside it. A file that is not such JSON is warned of and replaced; one that
// cannot be written is warned of once.
namespace halcyon::tuning {

// The fastest candidate, and the time of each.
struct Choice {
  std::string candidate;
  std::map<std::string, double> milliseconds;
};

std::optional<std::filesystem::path> cache_file();
// For this process, whatever the environment says; nothing: what the environment says.
void use_cache_file(std::optional<std::filesystem::path> file);

std::optional<Choice> stored_choice(const std::string& operation, const std::string& problem);
void store_choice(const std::string& operation, const std::string& problem, const Choice& choice);

}  // namespace halcyon::tuning
