// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "halcyon/ops/tuning/tuning_cache.h"

// Chooses between ways to compute the same, by measuring each once for a problem: the least time of
// several runs wins and is kept for the life of the process and, where there is a cache file,
// beyond it (tuning_cache.h). Off unless the environment variable HALCYON_TUNING_CACHE names a
// file or a program turns it on; no choice changes a result by more than rounding. Safe between
// threads.
namespace halcyon {

struct AutotunerPass {
  bool enabled = true;
  bool thorough = false;                // more candidates
  int64_t warmup_steps = 5, steps = 5;  // runs of each candidate that do not and that do count
};

// From now on the environment has no say. Under torch's deterministic algorithms this warns: there
// the autotuner is off while they are on. Throws Error(argument) when a number of steps is negative
// or an enabled pass has none.
void use_autotuner(const AutotunerPass& forward = {}, const AutotunerPass& backward = {});
void disable_autotuner();
bool is_autotuner_enabled();  // for either
bool is_autotuner_enabled_for_forward();
bool is_autotuner_enabled_for_backward();

namespace tuning {

enum class Pass { forward, backward };

// The options of the pass if it is tuned now.
std::optional<AutotunerPass> active(Pass pass);

// What tells one problem from another, and the candidates, named by what they set.
struct Question {
  std::string operation;  // "na2d forward"
  std::string problem;
  std::vector<std::string> candidates;
};

// The index of the fastest candidate; run(i) computes with the i-th.
std::size_t fastest(const Question& question, const AutotunerPass& options,
                    const std::function<void(std::size_t)>& run);

// What this process has chosen so far, in the order in which it met the problems.
struct Chosen {
  std::string operation, problem;
  Choice choice;
  bool measured;  // by this process; else taken from the cache file
};
std::vector<Chosen> chosen();

// Forgets what this process has chosen; for tests.
void forget_choices();

}  // namespace tuning
}  // namespace halcyon
