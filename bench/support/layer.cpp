// SPDX-License-Identifier: Apache-2.0
#include "bench/support/layer.h"

#include <torch/torch.h>

#include <algorithm>
#include <memory>

#include "bench/support/autocast.h"
#include "bench/support/compare.h"

namespace halcyon::bench {
namespace {

constexpr double kForwardAndBackward = 3;  // forwards

struct Outcome {
  at::Tensor out, grad_out;
};

void run_forward(const Layer& layer, bool bf16, Outcome& outcome) {
  const torch::NoGradGuard no_grad;
  const Bf16Autocast autocast(bf16);
  outcome.out = layer.forward();
}

void run_both(const Layer& layer, bool bf16, Outcome& outcome) {
  for (const auto& [name, leaf] : layer.leaves) leaf.mutable_grad().reset();
  {
    const Bf16Autocast autocast(bf16);
    outcome.out = layer.forward();
  }
  if (!outcome.grad_out.defined()) outcome.grad_out = torch::randn_like(outcome.out);
  outcome.out.backward(outcome.grad_out);
}

double off(const Layer& layer, bool backward, const Outcome& outcome, Bounds bounds) {
  Named copies;
  for (const auto& [name, leaf] : layer.leaves)
    copies[name] = leaf.detach().clone().requires_grad_(backward);
  const torch::AutoGradMode mode(backward);
  const auto expected = layer.reference(copies);
  double worst = deviation(outcome.out, expected, bounds.out);
  if (!backward) return worst;
  expected.backward(outcome.grad_out.to(expected.scalar_type()));
  for (const auto& [name, leaf] : layer.leaves)
    worst = std::max(worst, deviation(leaf.grad(), copies.at(name).grad(), bounds.gradient));
  return worst;
}

}  // namespace

Case layer_case(const Layer& layer, bool backward, at::ScalarType type, Bounds bounds) {
  for (const auto& [name, leaf] : layer.leaves) leaf.requires_grad_(backward);
  const auto outcome = std::make_shared<Outcome>();
  const bool bf16 = type == at::kBFloat16;
  Case c;
  c.run = [=] { backward ? run_both(layer, bf16, *outcome) : run_forward(layer, bf16, *outcome); };
  c.flops = layer.flops * (backward ? kForwardAndBackward : 1);
  c.bytes = layer.bytes + (backward ? layer.backward_bytes : 0);
  c.type = type;
  c.deviation = [=] { return off(layer, backward, *outcome, bounds); };
  return c;
}

void add_layer(const std::string& name, const std::function<Layer()>& make, Passes passes) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const bool bf16 = type == at::kBFloat16;
    if (bf16 && !passes.bf16) continue;
    for (const bool backward : {false, true}) {
      if (backward && !passes.backward) continue;
      const auto full = name + (backward ? "/fwd_bwd" : "/fwd") + (bf16 ? "/bf16" : "/fp32");
      add(full, [=] {
        torch::manual_seed(1);
        return layer_case(make(), backward, type, bf16 ? passes.bf16_bounds : kFp32);
      });
    }
  }
}

Named parameters_of(const torch::nn::Module& module) {
  Named all;
  for (const auto& item : module.named_parameters()) all[item.key()] = item.value();
  return all;
}

}  // namespace halcyon::bench
