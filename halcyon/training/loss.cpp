// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/loss.h"

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>

#include <algorithm>
#include <sstream>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"

namespace halcyon::training {
namespace {

const config::Names<LossKind> kKinds{{"huber", LossKind::huber}, {"mse", LossKind::mse}};

std::string shape(const at::Tensor& x) {
  std::ostringstream out;
  out << x.sizes();
  return out.str();
}

void check_broadcasts(const at::Tensor& x, const at::Tensor& target, const char* name) {
  HALCYON_CHECK(at::is_expandable_to(x.sizes(), target.sizes()), "weighted_loss",
                "expected a {} that broadcasts to the target {}, got {}", name, shape(target),
                shape(x));
}

}  // namespace

at::Tensor weighted_loss(const at::Tensor& prediction, const at::Tensor& target,
                         const LossOptions& options, const at::Tensor& mask,
                         const at::Tensor& weight) {
  HALCYON_CHECK(prediction.sizes() == target.sizes() && target.dim() >= 2, "weighted_loss",
                "expected a prediction and a target of the same shape (B, V, ...), got {} and {}",
                shape(prediction), shape(target));
  HALCYON_CHECK(options.delta > 0, "weighted_loss", "expected delta above zero, got {}",
                options.delta);
  const bool wide = prediction.scalar_type() == at::kDouble || target.scalar_type() == at::kDouble;
  const at::ScalarType type = wide ? at::kDouble : at::kFloat;
  at::Tensor error = prediction.to(type) - target.to(type);
  at::Tensor w = weight.defined() ? weight.to(type) : at::ones_like(error);
  check_broadcasts(w, target, "weight");
  if (mask.defined()) {
    HALCYON_CHECK(mask.scalar_type() == at::kBool, "weighted_loss",
                  "expected a mask of bool, got {}", describe(mask));
    check_broadcasts(mask, target, "mask");
    error = at::where(mask, error, at::zeros_like(error));
    w = at::where(mask, w, at::zeros_like(w));
  }
  if (!options.channel_weights.empty()) {
    HALCYON_CHECK(static_cast<int64_t>(options.channel_weights.size()) == target.size(1),
                  "weighted_loss", "expected a weight for each of {} channels, got {}",
                  target.size(1), options.channel_weights.size());
    std::vector<int64_t> along(static_cast<std::size_t>(target.dim()), 1);
    along[1] = target.size(1);
    w = w * at::tensor(options.channel_weights, w.options()).view(along);
  }
  w = w.expand_as(error);
  const at::Tensor cost =
      options.kind == LossKind::mse
          ? error.square()
          : at::huber_loss(error, at::zeros_like(error), at::Reduction::None, options.delta);
  const at::Tensor total = w.sum();
  return (w * cost).sum() / at::where(total > 0, total, at::ones_like(total));
}

LossOptions loss_options(const config::Node& node) {
  LossOptions options;
  options.kind = node.choice("kind", kKinds, options.kind);
  options.delta = node.optional<double>("delta", options.delta, config::positive());
  options.channel_weights =
      node.optional<std::vector<double>>("channel_weights", {}, config::at_least(0));
  return options;
}

}  // namespace halcyon::training
