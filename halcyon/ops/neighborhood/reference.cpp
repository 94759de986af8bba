// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "halcyon/ops/neighborhood/backends.h"
#include "halcyon/ops/neighborhood/slots.h"

namespace halcyon::neighborhood {

Output reference(const Inputs& in) {
  const auto type = in.accumulate();
  const auto slots = slots_of(in.axes, in.query);
  const int64_t last = static_cast<int64_t>(in.axes.size());
  const auto query = in.query.to(type).flatten(1, last);  // (B, T, H, d)
  const int64_t heads = query.size(2), shared = heads / in.key.size(-2);
  const auto gathered = [&](const at::Tensor& t) {  // (B, T, W, H, c)
    const auto rows = t.to(type).flatten(1, last);
    const auto index =
        slots.key.view({1, -1, 1, 1}).expand({rows.size(0), -1, rows.size(2), rows.size(3)});
    return rows.gather(1, index).unflatten(1, slots.key.sizes()).repeat_interleave(shared, 3);
  };
  const auto dot = [](const at::Tensor& a, const at::Tensor& b) { return (a * b).sum(-1); };
  auto scores = dot((query * in.scale).unsqueeze(2), gathered(in.key)).transpose(2, 3);
  if (in.bias) {
    const auto index = slots.relative.view({1, -1}).expand({heads, -1});
    scores = scores + in.bias->to(type)
                          .flatten(1)
                          .gather(1, index)
                          .unflatten(1, slots.relative.sizes())
                          .transpose(0, 1);
  }
  const auto unused = slots.used.logical_not().unsqueeze(1);
  scores = scores.masked_fill(unused, -std::numeric_limits<double>::infinity());
  const auto shared_by_heads = [&](const at::Tensor& t) {
    return t.to(type).repeat_interleave(shared, 2);
  };
  const int64_t window = scores.size(-1);
  if (in.more_keys) {
    const auto more = shared_by_heads(*in.more_keys).unsqueeze(1);  // (B, 1, N, H, d)
    scores = at::cat({scores, dot((query * in.scale).unsqueeze(2), more).transpose(2, 3)}, -1);
  }
  const auto lse = at::logsumexp(scores, -1);
  const auto weights = at::softmax(scores, -1);
  auto out =
      (weights.slice(-1, 0, window).transpose(2, 3).unsqueeze(-1) * gathered(in.value)).sum(2);
  if (in.more_values) {
    const auto more = shared_by_heads(*in.more_values).unsqueeze(1);
    out = out + (weights.slice(-1, window).transpose(2, 3).unsqueeze(-1) * more).sum(2);
  }
  auto shape = in.query.sizes().vec();
  shape.pop_back();
  const auto grid = at::IntArrayRef(shape).slice(1, in.axes.size());
  return {out.to(in.query.scalar_type()).unflatten(1, grid), lse.unflatten(1, grid)};
}

Gradients reference_gradients(const Inputs& in, const at::Tensor& grad_out,
                              const at::Tensor& grad_lse) {
  const at::AutoGradMode with_graph(true);
  Inputs leaves = in;
  std::vector<at::Tensor> inputs;
  const auto leaf = [&](at::Tensor& t) {
    t = t.detach().requires_grad_();
    inputs.push_back(t);
  };
  for (auto* t : {&leaves.query, &leaves.key, &leaves.value}) leaf(*t);
  for (auto* t : {&leaves.bias, &leaves.more_keys, &leaves.more_values}) {
    if (*t) leaf(**t);
  }
  const auto output = reference(leaves);
  std::vector<at::Tensor> results{output.out}, seeds{grad_out};
  if (grad_lse.defined()) {
    results.push_back(output.lse);
    seeds.push_back(grad_lse);
  }
  auto grads = torch::autograd::grad(results, inputs, seeds, {}, false, /*allow_unused=*/true);
  for (std::size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].defined()) grads[i] = at::zeros_like(inputs[i]);
  }
  auto next = grads.begin();
  const auto take = [&](bool given) { return given ? *next++ : at::Tensor(); };
  Gradients result;
  result.query = take(true);
  result.key = take(true);
  result.value = take(true);
  result.bias = take(in.bias.has_value());
  result.more_keys = take(in.more_keys.has_value());
  result.more_values = take(in.more_values.has_value());
  return result;
}

}  // namespace halcyon::neighborhood
