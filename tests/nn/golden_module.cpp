// SPDX-License-Identifier: Apache-2.0
#include "tests/nn/golden_module.h"

#include <ATen/autocast_mode.h>

#include "tests/support/compare.h"

namespace halcyon::test {
namespace {

Named state_of(torch::nn::Module& module) {
  Named state;
  for (const auto& entry : module.named_parameters()) state.emplace(entry.key(), entry.value());
  for (const auto& entry : module.named_buffers()) state.emplace(entry.key(), entry.value());
  return state;
}

// in.*, cast, as leaves that require gradients where the golden has one.
Named inputs_of(const Golden& g, at::ScalarType type) {
  auto inputs = g.under("in.");
  for (auto& [name, x] : inputs) {
    x = x.clone();
    if (x.is_floating_point()) x = x.to(type);
    x.requires_grad_(g.has("grad.in." + name));
  }
  return inputs;
}

void backward(const Named& outputs, const Named& cotangents) {
  at::Tensor total;
  for (const auto& [name, w] : cotangents) {
    const auto term = (outputs.at(name) * w.to(outputs.at(name).scalar_type())).sum();
    total = total.defined() ? total + term : term;
  }
  if (total.defined()) total.backward();
}

void check_double(const Golden& g, torch::nn::Module& module,
                  const std::function<Named(const Named&)>& forward) {
  module.to(torch::kDouble);
  const auto inputs = inputs_of(g, at::kDouble);
  const auto outputs = forward(inputs);
  for (const auto& [name, expected] : g.under("out64."))
    EXPECT_TRUE(near(outputs.at(name), expected, kDouble)) << "out64." << name;
  backward(outputs, g.under("gradout."));
  for (const auto& [name, expected] : g.under("grad64.in."))
    EXPECT_TRUE(near(inputs.at(name).grad(), expected, kDouble)) << "grad64.in." << name;
  module.to(torch::kFloat);
}

}  // namespace

Named state_copy(torch::nn::Module& module) {
  auto state = state_of(module);
  for (auto& [name, x] : state) x = x.detach().clone();
  return state;
}

testing::AssertionResult set_state(torch::nn::Module& module, const Named& values) {
  const auto state = state_of(module);
  for (const auto& [name, x] : values) {
    if (!state.contains(name)) return testing::AssertionFailure() << "no key " << name;
    if (state.at(name).sizes() != x.sizes())
      return testing::AssertionFailure() << name << " has another shape";
  }
  for (const auto& [name, x] : state) {
    if (!values.contains(name)) return testing::AssertionFailure() << "key " << name << " too many";
    torch::NoGradGuard no_grad;
    x.copy_(values.at(name));
  }
  return testing::AssertionSuccess();
}

void check_golden(const Golden& g, torch::nn::Module& module,
                  const std::function<Named(const Named&)>& forward, GoldenTolerance tolerance) {
  ASSERT_TRUE(set_state(module, g.under("param.")));
  module.eval();
  module.zero_grad();
  const auto inputs = inputs_of(g, at::kFloat);
  const auto outputs = forward(inputs);
  for (const auto& [name, y] : outputs)
    EXPECT_TRUE(near(y, g.at("out." + name), tolerance.output)) << "out." << name;
  for (const auto& [name, y] : forward(inputs)) EXPECT_TRUE(identical(y, outputs.at(name)));
  backward(outputs, g.under("gradout."));
  for (const auto& [name, expected] : g.under("grad.in."))
    EXPECT_TRUE(near(inputs.at(name).grad(), expected, tolerance.gradient)) << "grad.in." << name;
  const auto state = state_of(module);
  for (const auto& [name, expected] : g.under("grad.param.")) {
    ASSERT_TRUE(state.contains(name)) << name;
    EXPECT_TRUE(near(state.at(name).grad(), expected, tolerance.gradient)) << "grad.param." << name;
  }
  if (!g.under("out64.").empty()) check_double(g, module, forward);
}

Bf16Autocast::Bf16Autocast() {
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::increment_nesting();
}

Bf16Autocast::~Bf16Autocast() {
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
}

std::vector<at::Tensor> double_leaves(torch::nn::Module& module, std::vector<at::Tensor> inputs) {
  module.to(torch::kDouble);
  torch::NoGradGuard no_grad;
  for (auto& p : module.parameters()) {
    p.normal_(0, 0.3);
    if (p.numel() > 0) inputs.push_back(p);
  }
  return inputs;
}

at::Tensor leaf(at::IntArrayRef sizes) {
  return torch::randn(sizes, torch::kDouble).requires_grad_(true);
}

testing::AssertionResult refuses(const std::function<void()>& f, const std::string& part,
                                 ErrorKind kind) {
  try {
    f();
  } catch (const Error& error) {
    if (error.kind() != kind)
      return testing::AssertionFailure() << "another kind: " << error.what();
    if (std::string(error.what()).find(part) == std::string::npos)
      return testing::AssertionFailure() << "no \"" << part << "\" in: " << error.what();
    return testing::AssertionSuccess();
  } catch (const std::exception& error) {
    return testing::AssertionFailure() << "another exception: " << error.what();
  }
  return testing::AssertionFailure() << "nothing thrown";
}

}  // namespace halcyon::test
