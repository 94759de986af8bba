// SPDX-License-Identifier: Apache-2.0
#include "tests/support/compare.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

namespace halcyon::test {
namespace {

std::string shape(const at::Tensor& t) {
  return t.defined()
             ? fmt::format("({}) {}", fmt::join(t.sizes(), ", "), c10::toString(t.scalar_type()))
             : "undefined";
}

std::string index_of(const at::Tensor& t, int64_t flat) {
  std::vector<int64_t> index(t.dim());
  for (int64_t axis = t.dim(); axis-- > 0; flat /= t.size(axis)) index[axis] = flat % t.size(axis);
  return fmt::format("[{}]", fmt::join(index, ", "));
}

}  // namespace

testing::AssertionResult near(const at::Tensor& actual, const at::Tensor& expected,
                              double relative) {
  if (!actual.defined() || !expected.defined() || actual.sizes() != expected.sizes()) {
    return testing::AssertionFailure()
           << "shapes differ: got " << shape(actual) << ", expected " << shape(expected);
  }
  if (expected.numel() == 0) return testing::AssertionSuccess();
  const auto a = actual.detach().cpu().to(at::kDouble).contiguous();
  const auto e = expected.detach().cpu().to(at::kDouble).contiguous();
  const auto nan_a = a.isnan(), nan_e = e.isnan();
  if (!nan_a.equal(nan_e)) {
    const auto where = (nan_a != nan_e).flatten().nonzero()[0].item<int64_t>();
    return testing::AssertionFailure() << "NaN pattern differs first at " << index_of(a, where);
  }
  const auto finite = at::nan_to_num(e, 0.0, 0.0, 0.0);
  const double scale = finite.abs().max().item<double>();
  auto error = at::nan_to_num((a - e).abs(), 0.0, 1e300, 1e300).flatten();
  error = at::where((a == e).flatten(), at::zeros_like(error), error);  // equal infinities
  const auto worst = error.argmax().item<int64_t>();
  const double value = error[worst].item<double>();
  if (value <= relative * scale) return testing::AssertionSuccess();
  return testing::AssertionFailure() << fmt::format(
             "worst of {} elements at {}: got {:.9g}, expected {:.9g}; error {:.3g} is {:.3g} of "
             "the largest value {:.6g}, "
             "allowed {:.3g}",
             e.numel(), index_of(a, worst), a.flatten()[worst].item<double>(),
             e.flatten()[worst].item<double>(), value, scale > 0 ? value / scale : value, scale,
             relative);
}

testing::AssertionResult identical(const at::Tensor& actual, const at::Tensor& expected) {
  if (!actual.defined() || !expected.defined() || actual.sizes() != expected.sizes() ||
      actual.scalar_type() != expected.scalar_type()) {
    return testing::AssertionFailure()
           << "got " << shape(actual) << ", expected " << shape(expected);
  }
  auto same = actual.eq(expected);
  if (actual.is_floating_point())
    same = same.logical_or(actual.isnan().logical_and(expected.isnan()));
  if (same.all().item<bool>()) return testing::AssertionSuccess();
  const auto where = same.logical_not().flatten().nonzero();
  return testing::AssertionFailure() << where.size(0) << " elements differ, first at "
                                     << index_of(actual, where[0].item<int64_t>());
}

}  // namespace halcyon::test
