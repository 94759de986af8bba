// SPDX-License-Identifier: Apache-2.0
#include "bench/support/compare.h"

#include <ATen/ATen.h>

#include <limits>

namespace halcyon::bench {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

double deviation(const at::Tensor& actual, const at::Tensor& expected, double allowed) {
  if (!actual.defined() || actual.sizes() != expected.sizes()) return kInfinity;
  if (expected.numel() == 0) return 0;
  const auto e = expected.detach().to(at::kDouble);
  const double error = (actual.detach().to(at::kDouble) - e).abs().max().item<double>();
  if (error == 0) return 0;
  const double share = error / (allowed * e.abs().max().item<double>());
  return share < kInfinity ? share : kInfinity;  // a NaN compares as no
}

double difference(const at::Tensor& actual, const at::Tensor& expected) {
  return actual.sizes() == expected.sizes() && actual.eq(expected).all().item<bool>() ? 0
                                                                                      : kInfinity;
}

}  // namespace halcyon::bench
