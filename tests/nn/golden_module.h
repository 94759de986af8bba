// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>
#include <map>
#include <string>

#include "halcyon/base/error.h"
#include "tests/support/golden.h"

namespace halcyon::test {

using Named = std::map<std::string, at::Tensor>;

// The module's parameters and buffers, as copies.
Named state_copy(torch::nn::Module& module);

// Copies the values into the module's parameters and buffers; the names must be the same set.
testing::AssertionResult set_state(torch::nn::Module& module, const Named& values);

struct GoldenTolerance {
  double output, gradient;
};
inline constexpr GoldenTolerance kLayerGolden{2e-5, 2e-4};
inline constexpr GoldenTolerance kModelGolden{1e-4, 2e-4};

// Runs forward(in.*) on a module with the golden's parameters: all outputs, all gradients of inputs
// and parameters, a second run bit for bit, and the double-precision answers where the golden has
// them. forward returns its outputs by the golden's names.
void check_golden(const Golden& g, torch::nn::Module& module,
                  const std::function<Named(const Named&)>& forward,
                  GoldenTolerance tolerance = kLayerGolden);

// torch.autocast("cpu", dtype=torch.bfloat16) while it lives.
class Bf16Autocast {
 public:
  Bf16Autocast();
  ~Bf16Autocast();
  Bf16Autocast(const Bf16Autocast&) = delete;
  Bf16Autocast& operator=(const Bf16Autocast&) = delete;
};

// Leaves in double with gradients: the module's parameters, drawn from N(0, 0.3^2) so that nothing
// is zero, and the extra inputs.
std::vector<at::Tensor> double_leaves(torch::nn::Module& module, std::vector<at::Tensor> inputs);

// A double leaf from N(0, 1).
at::Tensor leaf(at::IntArrayRef sizes);

// f throws Error of this kind with `part` in its message.
testing::AssertionResult refuses(const std::function<void()>& f, const std::string& part,
                                 ErrorKind kind = ErrorKind::argument);

}  // namespace halcyon::test
