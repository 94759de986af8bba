// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

namespace halcyon::test {

// Compares autograd's gradients of sum(w * f(inputs)), w fixed and random, with central differences
// in double. inputs are leaves in double that require gradients; f returns one or more tensors. At
// most `probes` elements of each input.
testing::AssertionResult gradcheck(const std::function<std::vector<at::Tensor>()>& f,
                                   const std::vector<at::Tensor>& inputs, double tolerance = 1e-6,
                                   int64_t probes = 40);

}  // namespace halcyon::test
