// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/norms.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <numeric>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/axes.h"
#include "halcyon/parallel/row_transfer.h"
#include "halcyon/parallel/standardize.h"

namespace halcyon::parallel {
namespace {

using MaybeTensor = std::optional<at::Tensor>;

bool is_given(const MaybeTensor& t) {
  return t && t->defined();
}

void check_input(const at::Tensor& x, int64_t least_axes, double eps,
                 const std::string& operation) {
  HALCYON_CHECK(x.defined() && x.is_floating_point() && x.dim() >= least_axes, operation,
                "expected x of a floating dtype with {} axes or more, got {}", least_axes,
                describe(x));
  HALCYON_CHECK(eps >= 0, operation, "expected eps of zero or more, got {}", eps);
}

// weight, bias or running statistics: their checks, and that all ranks have them or none.
void agree_on(Agreement& agreement, const char* name, const MaybeTensor& t, at::IntArrayRef shape,
              const at::Tensor& x, const std::string& operation) {
  agreement.same(fmt::format("dtype of {}", name).c_str(),
                 is_given(t) ? t->scalar_type() : at::ScalarType::Undefined);
  if (!is_given(t)) return;
  HALCYON_CHECK(t->sizes() == shape, operation, "expected {} of shape ({}), got {}", name,
                fmt::join(shape, ", "), describe(*t));
  const auto dtype = t->scalar_type();
  HALCYON_CHECK((dtype == x.scalar_type() || dtype == at::kFloat) && t->device() == x.device(),
                operation, "expected {} of x's dtype or float32, on its device, got {} for x {}",
                name, describe(*t), describe(x));
}

at::Tensor widened(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

// values * weight + bias, which broadcast as `shape`, in x's dtype.
at::Tensor with_affine(const at::Tensor& values, const MaybeTensor& weight, const MaybeTensor& bias,
                       at::IntArrayRef shape, const at::Tensor& x) {
  const auto shaped = [&](const MaybeTensor& t) {
    return t->to(values.scalar_type()).reshape(shape);
  };
  auto out = values;
  if (is_given(weight) && is_given(bias)) {
    out = at::addcmul(shaped(bias), values, shaped(weight));
  } else if (is_given(weight)) {
    out = values * shaped(weight);
  } else if (is_given(bias)) {
    out = values + shaped(bias);
  } else if (values.requires_grad() && values.scalar_type() == x.scalar_type()) {
    out = values.clone();  // the backward needs the values, the caller may write into the result
  }
  return out.to(x.scalar_type());
}

// One entry a channel, for x.
std::vector<int64_t> along_channels(const at::Tensor& x) {
  std::vector<int64_t> shape(x.dim(), 1);
  shape[1] = x.size(1);
  return shape;
}

void update(const MaybeTensor& running, const at::Tensor& value, double momentum) {
  const c10::NoGradGuard data_only;
  running->copy_(running->to(at::kDouble) * (1 - momentum) + value.flatten() * momentum);
}

// One call: the agreement, and the moments of this rank's part while it is under way.
class Norm {
 public:
  Norm(const Group& group, const char* operation)
      : agreement(group, operation), population_{group, operation, 0, {}} {}

  Agreement agreement;

  // Last in prepare(): x as it is standardized over these axes.
  void take(const at::Tensor& x, std::vector<int64_t> axes) {
    int64_t count = 1;
    for (const auto axis : axes) count *= x.size(axis);
    count_at_ = agreement.each(count);
    values_at_ = agreement.each(x.numel());
    grad_at_ = agreement.each(x.requires_grad());
    x_ = x;
    population_.axes = std::move(axes);
  }

  void finish() {
    agreement.post();
    if (x_.defined()) local_ = local_moments(x_, population_.axes);
    agreement.finish();
    population_.tag = agreement.tag();
    x_ = joined_to_backward(x_, agreement.any(grad_at_));
  }

  // Of all ranks together.
  int64_t values() const {
    const auto each = agreement.of_all(values_at_);
    return std::accumulate(each.begin(), each.end(), int64_t{0});
  }

  // Each rank for itself: what is standardized is not cut.
  void stay_alone() { population_.group = Group::alone(); }

  at::Tensor standardized(double eps) {
    const auto& p = population_;
    const auto counts =
        p.group.size() == 1 ? std::vector<int64_t>{local_.count} : agreement.of_all(count_at_);
    moments_ = moments_over_ranks(local_, counts, p.group, p.operation, p.tag);
    return standardize(x_, local_, moments_, eps, p);
  }
  const Moments& moments() const { return moments_; }

 private:
  Population population_;
  at::Tensor x_;
  LocalMoments local_;
  Moments moments_;
  size_t count_at_ = 0, values_at_ = 0, grad_at_ = 0;
};

}  // namespace

at::Tensor group_norm(const at::Tensor& x, int64_t num_groups, const MaybeTensor& weight,
                      const MaybeTensor& bias, double eps, int64_t dim, const Group& group) {
  const std::string operation = "group_norm";
  Norm norm(group, "group_norm");
  int64_t axis = 0;
  norm.agreement.prepare([&] {
    check_input(x, 2, eps, operation);
    axis = axis_of(x, dim, "dim", operation);
    const auto channels = x.size(1);
    HALCYON_CHECK(axis != 1, operation,
                  "expected dim to be another axis than that of the channels, got {}", dim);
    HALCYON_CHECK(num_groups > 0 && channels % num_groups == 0, operation,
                  "expected num_groups to divide the {} channels of x, got {}", channels,
                  num_groups);
    norm.agreement.same_but("x", x, axis);
    norm.agreement.same("dim", axis);
    norm.agreement.same("num_groups", num_groups);
    norm.agreement.same("eps", eps);
    agree_on(norm.agreement, "weight", weight, {channels}, x, operation);
    agree_on(norm.agreement, "bias", bias, {channels}, x, operation);
    const auto positions = c10::multiply_integers(x.sizes().slice(2));
    norm.take(widened(x).reshape({x.size(0), num_groups, channels / num_groups * positions}), {2});
  });
  norm.finish();
  HALCYON_CHECK(norm.values() != num_groups, operation,
                "expected more than one value a group, got {} in {} groups", norm.values(),
                num_groups);
  if (axis == 0) norm.stay_alone();
  return with_affine(norm.standardized(eps).reshape(x.sizes()), weight, bias, along_channels(x), x);
}

at::Tensor layer_norm(const at::Tensor& x, at::IntArrayRef normalized_shape,
                      const MaybeTensor& weight, const MaybeTensor& bias, double eps, int64_t dim,
                      const Group& group) {
  const std::string operation = "layer_norm";
  Norm norm(group, "layer_norm");
  int64_t axis = 0, first = 0;
  size_t rows_at = 0;
  norm.agreement.prepare([&] {
    check_input(x, 1, eps, operation);
    axis = axis_of(x, dim, "dim", operation);
    first = x.dim() - static_cast<int64_t>(normalized_shape.size());
    HALCYON_CHECK(!normalized_shape.empty() && first >= 0, operation,
                  "expected normalized_shape with 1 to {} axes, got ({})", x.dim(),
                  fmt::join(normalized_shape, ", "));
    std::vector<int64_t> axes;
    for (int64_t i = first; i < x.dim(); ++i) {
      HALCYON_CHECK(i == axis || x.size(i) == normalized_shape[i - first], operation,
                    "expected x to end in the sizes of normalized_shape ({}), got {}",
                    fmt::join(normalized_shape, ", "), describe(x));
      axes.push_back(i);
    }
    norm.agreement.same_but("x", x, axis);
    norm.agreement.same("dim", axis);
    norm.agreement.same("normalized_shape", normalized_shape);
    norm.agreement.same("eps", eps);
    agree_on(norm.agreement, "weight", weight, normalized_shape, x, operation);
    agree_on(norm.agreement, "bias", bias, normalized_shape, x, operation);
    rows_at = norm.agreement.each(x.size(axis));
    norm.take(widened(x), axes);
  });
  norm.finish();
  std::vector<int64_t> shape(normalized_shape.begin(), normalized_shape.end());
  if (axis < first) {
    norm.stay_alone();
    return with_affine(norm.standardized(eps), weight, bias, shape, x);
  }
  const auto inside = axis - first;
  const auto starts = starts_of(norm.agreement.of_all(rows_at));
  HALCYON_CHECK(starts.back() == normalized_shape[inside], operation,
                "expected the parts of axis {} of x to be {} long together, as normalized_shape "
                "({}), got {}",
                axis, normalized_shape[inside], fmt::join(normalized_shape, ", "), starts.back());
  const auto part_of = [&](const MaybeTensor& t) -> MaybeTensor {
    if (!is_given(t)) return {};
    return t->narrow(inside, starts[group.rank()], x.size(axis));
  };
  shape[inside] = x.size(axis);
  return with_affine(norm.standardized(eps), part_of(weight), part_of(bias), shape, x);
}

at::Tensor batch_norm(const at::Tensor& x, const MaybeTensor& running_mean,
                      const MaybeTensor& running_var, const MaybeTensor& weight,
                      const MaybeTensor& bias, bool training, std::optional<double> momentum,
                      double eps, const Group& group) {
  const std::string operation = "batch_norm";
  Norm norm(group, "batch_norm");
  norm.agreement.prepare([&] {
    check_input(x, 2, eps, operation);
    const auto channels = x.size(1);
    HALCYON_CHECK(momentum, operation,
                  "expected momentum as a number (1 / the number of batches for the mean of all), "
                  "got none");
    HALCYON_CHECK(is_given(running_mean) == is_given(running_var), operation,
                  "expected running_mean and running_var together or neither, got one");
    HALCYON_CHECK(training || is_given(running_mean), operation,
                  "expected running_mean and running_var where it is not training, got none");
    norm.agreement.same("number of axes of x", x.dim());
    norm.agreement.same("number of channels of x", channels);
    norm.agreement.same("dtype of x", x.scalar_type());
    norm.agreement.same("training", static_cast<int64_t>(training));
    norm.agreement.same("momentum", *momentum);
    norm.agreement.same("eps", eps);
    agree_on(norm.agreement, "running_mean", running_mean, {channels}, x, operation);
    agree_on(norm.agreement, "running_var", running_var, {channels}, x, operation);
    agree_on(norm.agreement, "weight", weight, {channels}, x, operation);
    agree_on(norm.agreement, "bias", bias, {channels}, x, operation);
    std::vector<int64_t> axes{0};
    for (int64_t i = 2; i < x.dim(); ++i) axes.push_back(i);
    norm.take(widened(x), axes);
  });
  if (!training) {
    norm.agreement.post();
    norm.agreement.finish();
    const auto shape = along_channels(x);
    const auto values = widened(x);
    const auto mean = running_mean->detach().to(values.scalar_type()).reshape(shape);
    const auto variance = running_var->detach().to(values.scalar_type()).reshape(shape);
    return with_affine((values - mean) * (variance + eps).rsqrt(), weight, bias, shape, x);
  }
  norm.finish();
  HALCYON_CHECK(norm.values() != x.size(1), operation,
                "expected more than one value a channel when training, got {} in {} channels",
                norm.values(), x.size(1));
  const auto out = with_affine(norm.standardized(eps), weight, bias, along_channels(x), x);
  const auto& all = norm.moments();
  if (is_given(running_mean) && all.count > 0) {
    update(running_mean, all.mean, *momentum);
    update(running_var, all.squares / static_cast<double>(all.count - 1), *momentum);
  }
  return out;
}

}  // namespace halcyon::parallel
