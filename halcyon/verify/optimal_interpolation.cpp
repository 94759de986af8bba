// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/optimal_interpolation.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"

namespace halcyon::verify {
namespace {

constexpr const char* kOperation = "OptimalInterpolation";

at::Tensor lagged_covariance(const at::Tensor& x, const std::vector<int64_t>& times, int64_t lag) {
  std::map<int64_t, int64_t> place;
  for (std::size_t t = 0; t < times.size(); ++t) place[times[t]] = static_cast<int64_t>(t);
  std::vector<int64_t> now, before;
  for (const auto& [time, t] : place) {
    const auto found = place.find(time - lag);
    if (found == place.end()) continue;
    now.push_back(t);
    before.push_back(found->second);
  }
  HALCYON_CHECK(!now.empty(), kOperation, "expected training times {} apart, got none",
                format_duration(lag));
  const at::Tensor later = at::index_select(x, 0, at::tensor(now, at::kLong));
  const at::Tensor earlier = at::index_select(x, 0, at::tensor(before, at::kLong));
  return at::matmul(later.t(), earlier) / static_cast<double>(now.size());
}

}  // namespace

OptimalInterpolation::OptimalInterpolation(const at::Tensor& anomalies,
                                           const std::vector<int64_t>& times,
                                           std::vector<int64_t> lags)
    : lags_(std::move(lags)) {
  HALCYON_CHECK(anomalies.dim() == 2 && anomalies.is_floating_point() &&
                    anomalies.size(0) == static_cast<int64_t>(times.size()) && !times.empty(),
                kOperation, "expected anomalies ({}, X), got {}", times.size(),
                fmt::join(anomalies.sizes(), "x"));
  HALCYON_CHECK(
      !lags_.empty() && lags_.front() == 0 &&
          std::adjacent_find(lags_.begin(), lags_.end(), std::greater_equal<>()) == lags_.end(),
      kOperation, "expected lags that ascend from 0, got {}", fmt::join(lags_, ", "));
  const at::Tensor x = anomalies.to(at::kDouble);
  HALCYON_CHECK(!x.isnan().any().item<bool>(), kOperation,
                "expected anomalies without missing values");
  for (const int64_t a : lags_)
    for (const int64_t b : lags_)
      if (b >= a && !covariance_.contains(b - a))
        covariance_[b - a] = lagged_covariance(x, times, b - a);
}

at::Tensor OptimalInterpolation::analyse(const SparseMatrix& h, const at::Tensor& error_variance,
                                         const at::Tensor& departures) const {
  const int64_t points = covariance_.at(0).size(0), sites = h.rows();
  const auto lags = static_cast<int64_t>(lags_.size());
  HALCYON_CHECK(h.columns() == points, kOperation, "expected sites on a grid of {} points, got {}",
                points, h.columns());
  HALCYON_CHECK(error_variance.dim() == 1 && error_variance.size(0) == sites &&
                    error_variance.min().item<double>() > 0,
                kOperation, "expected {} error variances above 0", sites);
  HALCYON_CHECK(departures.dim() == 3 && departures.size(1) == lags && departures.size(2) == sites,
                kOperation, "expected departures (time, {}, {}), got {}", lags, sites,
                fmt::join(departures.sizes(), "x"));

  // C(d) H' (X, N) and H C(d) H' (N, N) for every difference of lags
  std::map<int64_t, at::Tensor> to_sites, between_sites;
  for (const auto& [lag, covariance] : covariance_) {
    to_sites[lag] = h.apply(covariance);
    between_sites[lag] = h.apply(to_sites[lag].t().contiguous()).t();
  }
  std::vector<at::Tensor> rows, gains;
  for (const int64_t a : lags_) {
    std::vector<at::Tensor> row;
    for (const int64_t b : lags_)
      row.push_back(b >= a ? between_sites.at(b - a) : between_sites.at(a - b).t());
    rows.push_back(at::cat(row, 1));
    gains.push_back(to_sites.at(a).t());
  }
  const at::Tensor system =
      at::cat(rows, 0) + at::diag_embed(error_variance.to(at::kDouble).repeat({lags}));
  const at::Tensor right = at::cat(gains, 0);  // (L N, X)
  HALCYON_CHECK(!system.isnan().any().item<bool>(), kOperation,
                "expected sites inside the grid, got some outside");

  const at::Tensor y = departures.to(at::kDouble).reshape({departures.size(0), lags * sites});
  at::Tensor out = at::empty({y.size(0), points}, at::kDouble);
  // times that miss the same observations share one system
  std::map<std::vector<bool>, std::vector<int64_t>> patterns;
  const at::Tensor missing = y.isnan().contiguous();
  const bool* absent = missing.const_data_ptr<bool>();
  for (int64_t t = 0; t < y.size(0); ++t, absent += y.size(1))
    patterns[std::vector<bool>(absent, absent + y.size(1))].push_back(t);
  for (const auto& [pattern, members] : patterns) {
    std::vector<int64_t> kept;
    for (std::size_t i = 0; i < pattern.size(); ++i)
      if (!pattern[i]) kept.push_back(static_cast<int64_t>(i));
    const at::Tensor at_times = at::tensor(members, at::kLong);
    if (kept.empty()) {
      out.index_fill_(0, at_times, 0);
      continue;
    }
    const at::Tensor index = at::tensor(kept, at::kLong);
    const at::Tensor weights = at::linalg_solve(
        system.index_select(0, index).index_select(1, index), right.index_select(0, index));
    out.index_copy_(0, at_times,
                    at::matmul(y.index_select(0, at_times).index_select(1, index), weights));
  }
  return out;
}

}  // namespace halcyon::verify
