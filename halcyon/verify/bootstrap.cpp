// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "halcyon/base/error.h"

namespace halcyon::verify {
namespace {

// Sums of squared errors and their counts: blocks x series.
struct Blocks {
  std::size_t series = 0;
  std::vector<std::vector<double>> sums, counts;

  std::size_t size() const { return sums.size(); }
};

Blocks block_sums(const at::Tensor& squared, const std::vector<int64_t>& times,
                  int64_t block_days) {
  const at::Tensor values =
      (squared.dim() == 1 ? squared.unsqueeze(1) : squared).to(at::kDouble).contiguous();
  HALCYON_CHECK(values.dim() == 2 && values.size(0) == static_cast<int64_t>(times.size()) &&
                    values.size(1) > 0,
                "mean_rmse", "expected squared errors at {} times, got {}", times.size(),
                fmt::join(squared.sizes(), "x"));
  Blocks blocks;
  blocks.series = static_cast<std::size_t>(values.size(1));
  std::map<int64_t, std::size_t> place;
  const double* value = values.const_data_ptr<double>();
  for (const int64_t time : times) {
    const int64_t length = block_days * 86400;
    const int64_t block = time >= 0 ? time / length : -((-time + length - 1) / length);
    const auto [at, fresh] = place.try_emplace(block, blocks.size());
    if (fresh) {
      blocks.sums.emplace_back(blocks.series, 0.0);
      blocks.counts.emplace_back(blocks.series, 0.0);
    }
    for (std::size_t k = 0; k < blocks.series; ++k, ++value) {
      if (std::isnan(*value)) continue;
      blocks.sums[at->second][k] += *value;
      blocks.counts[at->second][k] += 1;
    }
  }
  return blocks;
}

// The statistic of the blocks drawn; a series without a value in the draw is left out.
double statistic(const Blocks& blocks, const std::vector<std::size_t>& drawn) {
  double total = 0;
  int64_t present = 0;
  for (std::size_t k = 0; k < blocks.series; ++k) {
    double sum = 0, count = 0;
    for (const std::size_t block : drawn) {
      sum += blocks.sums[block][k];
      count += blocks.counts[block][k];
    }
    if (count == 0) continue;
    total += std::sqrt(sum / count);
    ++present;
  }
  return total / static_cast<double>(present);
}

template <class Statistic>
Estimate interval(std::size_t blocks, const BootstrapOptions& options, Statistic value) {
  HALCYON_CHECK(options.resamples > 0 && options.block_days > 0 && options.confidence > 0 &&
                    options.confidence < 1,
                "mean_rmse",
                "expected resamples and block_days above 0 and a confidence between 0 and 1, got "
                "{}, {} and {}",
                options.resamples, options.block_days, options.confidence);
  std::vector<std::size_t> drawn(blocks);
  for (std::size_t b = 0; b < blocks; ++b) drawn[b] = b;
  Estimate out;
  out.value = value(drawn);
  std::mt19937_64 random(options.seed);
  std::vector<double> values;
  for (int64_t r = 0; r < options.resamples; ++r) {
    for (auto& one : drawn) one = static_cast<std::size_t>(random() % blocks);
    const double resampled = value(drawn);
    if (std::isfinite(resampled)) values.push_back(resampled);
  }
  std::sort(values.begin(), values.end());
  auto quantile = [&](double q) {  // linear between order statistics
    const double at = q * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(at);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
  };
  HALCYON_ASSERT(!values.empty());
  out.low = quantile((1 - options.confidence) / 2);
  out.high = quantile((1 + options.confidence) / 2);
  return out;
}

void check_series(const Blocks& blocks) {
  for (std::size_t k = 0; k < blocks.series; ++k) {
    double count = 0;
    for (const auto& block : blocks.counts) count += block[k];
    HALCYON_CHECK(count > 0, "mean_rmse",
                  "expected a present error in every series, got none in {}", k);
  }
}

}  // namespace

Estimate mean_rmse(const at::Tensor& squared, const std::vector<int64_t>& times,
                   const BootstrapOptions& options) {
  const Blocks blocks = block_sums(squared, times, std::max<int64_t>(1, options.block_days));
  check_series(blocks);
  return interval(blocks.size(), options,
                  [&](const auto& drawn) { return statistic(blocks, drawn); });
}

Estimate mean_rmse_difference(const at::Tensor& a, const at::Tensor& b,
                              const std::vector<int64_t>& times, const BootstrapOptions& options) {
  const int64_t days = std::max<int64_t>(1, options.block_days);
  HALCYON_CHECK(a.sizes() == b.sizes(), "mean_rmse_difference",
                "expected errors of one shape, got {} and {}", fmt::join(a.sizes(), "x"),
                fmt::join(b.sizes(), "x"));
  // where one lacks a value, the other's does not count either
  const at::Tensor absent = a.isnan().logical_or(b.isnan());
  const double missing = std::numeric_limits<double>::quiet_NaN();
  const Blocks of_a = block_sums(a.masked_fill(absent, missing), times, days);
  const Blocks of_b = block_sums(b.masked_fill(absent, missing), times, days);
  check_series(of_a);
  check_series(of_b);
  return interval(of_a.size(), options, [&](const auto& drawn) {
    return statistic(of_a, drawn) - statistic(of_b, drawn);
  });
}

}  // namespace halcyon::verify
