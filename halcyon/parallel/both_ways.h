// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <memory>

#include "halcyon/ops/kept.h"

namespace halcyon::parallel {

// A movement between ranks and its adjoint as operators, each the other's backward, so that both
// are differentiable any number of times. kMove(x, plan, adjoint) moves the data.
template <class Plan, at::Tensor (*kMove)(const at::Tensor&, const Plan&, bool)>
struct BothWays : torch::autograd::Function<BothWays<Plan, kMove>> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const std::shared_ptr<const Plan>& plan, bool adjoint) {
    ctx->saved_data["adjoint"] = adjoint;
    Kept<Plan>::keep(*ctx, plan);
    return kMove(x, *plan, adjoint);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const bool adjoint = ctx->saved_data["adjoint"].toBool();
    return {BothWays::apply(grads[0], Kept<Plan>::of(*ctx), !adjoint), {}, {}};
  }
};

}  // namespace halcyon::parallel
