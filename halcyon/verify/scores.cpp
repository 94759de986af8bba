// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/scores.h"

#include <cmath>
#include <map>

#include "halcyon/base/error.h"

namespace halcyon::verify {
namespace {

struct Pairs {
  at::Tensor predicted, truth, weights;  // float64 (T, X); zero where absent
};

Pairs present_pairs(const at::Tensor& predicted, const at::Tensor& truth, const at::Tensor& weights,
                    const char* operation) {
  HALCYON_CHECK(predicted.dim() == 2 && predicted.sizes() == truth.sizes() && weights.dim() == 1 &&
                    weights.size(0) == predicted.size(1),
                operation, "expected two fields (T, X) and weights (X), got {}, {} and {}",
                fmt::join(predicted.sizes(), "x"), fmt::join(truth.sizes(), "x"),
                fmt::join(weights.sizes(), "x"));
  HALCYON_CHECK(weights.numel() == 0 || weights.min().item<double>() >= 0, operation,
                "expected weights that are not negative");
  const at::Tensor p = predicted.to(at::kDouble), t = truth.to(at::kDouble);
  const at::Tensor absent = p.isnan().logical_or(t.isnan());
  return {p.masked_fill(absent, 0), t.masked_fill(absent, 0),
          weights.to(at::kDouble).expand_as(p).masked_fill(absent, 0)};
}

}  // namespace

Score score(const at::Tensor& predicted, const at::Tensor& truth, const at::Tensor& weights) {
  const auto [p, t, w] = present_pairs(predicted, truth, weights, "score");
  const double total = w.sum().item<double>();
  HALCYON_CHECK(total > 0, "score", "expected present values with a weight, got none");
  auto mean = [&w = w, total](const at::Tensor& x) { return (x * w).sum().item<double>() / total; };
  const at::Tensor error = p - t;
  const at::Tensor p_departure = p - mean(p), t_departure = t - mean(t);
  Score out;
  out.rmse = std::sqrt(mean(error.square()));
  out.bias = mean(error);
  out.mae = mean(error.abs());
  const double variances = mean(p_departure.square()) * mean(t_departure.square());
  out.correlation = mean(p_departure * t_departure) / std::sqrt(variances);
  out.count = (w > 0).sum().item<int64_t>();
  return out;
}

at::Tensor mean_square_by_time(const at::Tensor& predicted, const at::Tensor& truth,
                               const at::Tensor& weights) {
  const auto [p, t, w] = present_pairs(predicted, truth, weights, "mean_square_by_time");
  return ((p - t).square() * w).sum(1) / w.sum(1);
}

std::vector<Departures> departures_by_station(const std::vector<std::string>& station,
                                              const at::Tensor& observed,
                                              const at::Tensor& background,
                                              const at::Tensor& analysis) {
  const auto size = static_cast<int64_t>(station.size());
  for (const auto* one : {&observed, &background, &analysis})
    HALCYON_CHECK(one->dim() == 1 && one->size(0) == size, "departures_by_station",
                  "expected {} values, one a station name, got {}", size,
                  fmt::join(one->sizes(), "x"));
  const at::Tensor o = observed.to(at::kDouble).contiguous();
  const at::Tensor ob = (o - background.to(at::kDouble)).contiguous();
  const at::Tensor oa = (o - analysis.to(at::kDouble)).contiguous();
  const double *b = ob.const_data_ptr<double>(), *a = oa.const_data_ptr<double>();
  std::map<std::string, Departures> by_name;
  Departures all{.station = "all"};
  for (int64_t i = 0; i < size; ++i) {
    if (std::isnan(b[i]) || std::isnan(a[i])) continue;
    for (Departures* one : {&by_name[station[static_cast<std::size_t>(i)]], &all}) {
      ++one->count;
      one->mean_ob += b[i];
      one->rms_ob += b[i] * b[i];
      one->mean_oa += a[i];
      one->rms_oa += a[i] * a[i];
    }
  }
  std::vector<Departures> out;
  for (auto& [name, one] : by_name) {
    one.station = name;
    out.push_back(one);
  }
  out.push_back(all);
  for (auto& one : out) {
    if (one.count == 0) continue;
    const auto n = static_cast<double>(one.count);
    one.mean_ob /= n;
    one.mean_oa /= n;
    one.rms_ob = std::sqrt(one.rms_ob / n);
    one.rms_oa = std::sqrt(one.rms_oa / n);
  }
  return out;
}

}  // namespace halcyon::verify
