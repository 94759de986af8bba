// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/tuning/autotuner.h"

#include <ATen/Context.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>

#include "halcyon/base/error.h"

namespace halcyon {
namespace {

constexpr AutotunerPass kOff{false};

struct State {
  std::mutex mutex;
  std::optional<AutotunerPass> forward, backward;  // nothing: as the environment says
  std::vector<tuning::Chosen> chosen;
  std::map<std::string, std::size_t> place;  // in chosen, by operation and problem

  void keep(const std::string& key, tuning::Chosen choice) {
    const auto [found, is_new] = place.emplace(key, chosen.size());
    if (is_new)
      chosen.push_back(std::move(choice));
    else
      chosen[found->second] = std::move(choice);
  }
};

State& state() {
  static State s;
  return s;
}

void check(const char* pass, const AutotunerPass& options) {
  HALCYON_CHECK(options.warmup_steps >= 0, "use_autotuner", "expected warmup_steps_{} >= 0, got {}",
                pass, options.warmup_steps);
  HALCYON_CHECK(options.steps >= 1, "use_autotuner", "expected steps_{} >= 1, got {}", pass,
                options.steps);
}

// The least seconds of each candidate; the rounds go over all of them, so that what disturbs the
// machine for a while disturbs all.
std::vector<double> measure(std::size_t candidates, const AutotunerPass& options,
                            const std::function<void(std::size_t)>& run) {
  std::vector<double> least(candidates, std::numeric_limits<double>::infinity());
  for (int64_t round = -options.warmup_steps; round < options.steps; ++round) {
    for (std::size_t i = 0; i < candidates; ++i) {
      const auto start = std::chrono::steady_clock::now();
      run(i);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (round >= 0) least[i] = std::min(least[i], took.count());
    }
  }
  return least;
}

}  // namespace

void use_autotuner(const AutotunerPass& forward, const AutotunerPass& backward) {
  check("forward", forward);
  check("backward", backward);
  if (at::globalContext().deterministicAlgorithms() && (forward.enabled || backward.enabled)) {
    TORCH_WARN("the autotuner is off while torch's deterministic algorithms are on");
  }
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  s.forward = forward;
  s.backward = backward;
}

void disable_autotuner() {
  use_autotuner(kOff, kOff);
}
bool is_autotuner_enabled() {
  return is_autotuner_enabled_for_forward() || is_autotuner_enabled_for_backward();
}
bool is_autotuner_enabled_for_forward() {
  return tuning::active(tuning::Pass::forward).has_value();
}
bool is_autotuner_enabled_for_backward() {
  return tuning::active(tuning::Pass::backward).has_value();
}

namespace tuning {

std::optional<AutotunerPass> active(Pass pass) {
  if (at::globalContext().deterministicAlgorithms()) return {};
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  const auto& options = pass == Pass::forward ? s.forward : s.backward;
  if (!options) return cache_file() ? std::optional(AutotunerPass{}) : std::nullopt;
  return options->enabled ? options : std::nullopt;
}

std::size_t fastest(const Question& question, const AutotunerPass& options,
                    const std::function<void(std::size_t)>& run) {
  const auto index_of = [&](const std::string& candidate) {
    return static_cast<std::size_t>(
        std::find(question.candidates.begin(), question.candidates.end(), candidate) -
        question.candidates.begin());
  };
  const std::size_t none = question.candidates.size();
  const auto key = question.operation + '\n' + question.problem;
  auto& s = state();
  {
    const std::lock_guard lock(s.mutex);
    const auto found = s.place.find(key);
    if (found != s.place.end()) {
      const auto known = index_of(s.chosen[found->second].choice.candidate);
      if (known != none) return known;
    }
  }
  auto choice = stored_choice(question.operation, question.problem);
  const bool measured = !choice || index_of(choice->candidate) == none;
  if (measured) {
    // not under the lock: another thread may tune another problem, or this one, with the same
    // result
    const auto least = measure(question.candidates.size(), options, run);
    const auto best = std::min_element(least.begin(), least.end()) - least.begin();
    choice = Choice{question.candidates[static_cast<std::size_t>(best)], {}};
    for (std::size_t i = 0; i < none; ++i)
      choice->milliseconds[question.candidates[i]] = 1e3 * least[i];
  }
  {
    const std::lock_guard lock(s.mutex);
    s.keep(key, {question.operation, question.problem, *choice, measured});
  }
  if (measured) store_choice(question.operation, question.problem, *choice);
  return index_of(choice->candidate);
}

std::vector<Chosen> chosen() {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  return s.chosen;
}

void forget_choices() {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  s.chosen.clear();
  s.place.clear();
}

}  // namespace tuning
}  // namespace halcyon
