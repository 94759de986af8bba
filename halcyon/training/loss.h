// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "halcyon/base/config.h"

namespace halcyon::training {

enum class LossKind { huber, mse };

struct LossOptions {
  LossKind kind = LossKind::huber;
  double delta = 1;                          // Huber: quadratic below, linear above
  std::vector<double> channel_weights = {};  // one a channel of the target; empty: equal
};

// sum(w rho(e)) / sum(w) with e = prediction - target, both (B, V, ...), in float32 (float64 where
// an input is). rho: Huber (1964) e^2/2 where |e| < delta, else delta (|e| - delta/2); mse e^2.
// w: weight x channel weight where the mask holds, 0 elsewhere; mask (bool) and weight (at least
// zero) broadcast to the target and may be undefined. The target may be NaN where masked. With no
// weight at all the loss is 0. Throws Error(argument) for shapes that do not agree.
at::Tensor weighted_loss(const at::Tensor& prediction, const at::Tensor& target,
                         const LossOptions& options, const at::Tensor& mask = {},
                         const at::Tensor& weight = {});

// kind: huber | mse, delta, channel_weights
LossOptions loss_options(const config::Node& node);

}  // namespace halcyon::training
