// SPDX-License-Identifier: Apache-2.0
#include "bench/support/sampling.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace halcyon::bench {
namespace {

constexpr double kLong = 2.0;    // seconds of a run that is repeated three times only
constexpr double kBudget = 1.0;  // seconds for the runs of a short one
constexpr double kFewest = 5, kMost = 100;

}  // namespace

double seconds_of(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Timing measure(const std::function<void()>& run) {
  run();  // first touch of memory, caches, lazily made kernels
  const double once = seconds_of(run);
  const int runs = once > kLong ? 3 : static_cast<int>(std::clamp(kBudget / once, kFewest, kMost));
  std::vector<double> seconds(static_cast<size_t>(runs));
  for (auto& s : seconds) s = seconds_of(run);
  const double median = median_of(seconds);
  for (auto& s : seconds) s = std::abs(s - median);
  return {median, median_of(seconds), runs};
}

}  // namespace halcyon::bench
