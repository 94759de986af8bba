// SPDX-License-Identifier: Apache-2.0
#include "bench/support/observations.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace halcyon::bench {
namespace {

// Quantiles of the distribution with this scale, 1..longest.
std::vector<int64_t> quantiles(int64_t filled, double scale, int64_t longest) {
  std::vector<int64_t> counts(static_cast<size_t>(filled));
  for (size_t i = 0; i < counts.size(); ++i) {
    const double u = (static_cast<double>(i) + 0.5) / static_cast<double>(filled);
    const auto count = static_cast<int64_t>(std::lround(-scale * std::log1p(-u)));
    counts[i] = std::clamp<int64_t>(count, 1, longest);
  }
  return counts;
}

}  // namespace

at::Tensor ragged_counts(int64_t pixels, int64_t rows, int64_t longest, double empty_share) {
  const auto filled = pixels - static_cast<int64_t>(empty_share * static_cast<double>(pixels));
  double low = 0, high = 1e6;
  std::vector<int64_t> counts;
  const auto sum = [&] { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); };
  for (int step = 0; step < 60; ++step) {
    const double scale = (low + high) / 2;
    counts = quantiles(filled, scale, longest);
    (sum() > rows ? high : low) = scale;
  }
  counts = quantiles(filled, low, longest);
  // what rounding has left over, one observation a pixel
  for (size_t i = 0, rest = static_cast<size_t>(rows - sum()); rest > 0; ++i) {
    auto& count = counts[i % counts.size()];
    if (count == longest) continue;
    ++count;
    --rest;
  }
  counts.resize(static_cast<size_t>(pixels));
  const auto all = at::tensor(counts, at::kLong);
  return all.index_select(0, at::randperm(pixels, at::kLong));
}

at::Tensor scattered(const at::Tensor& counts) {
  const auto sorted = at::repeat_interleave(counts);
  return sorted.index_select(0, at::randperm(sorted.size(0), at::kLong));
}

}  // namespace halcyon::bench
