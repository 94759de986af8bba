// SPDX-License-Identifier: Apache-2.0
#include "tests/support/gradcheck.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

namespace halcyon::test {

testing::AssertionResult gradcheck(const std::function<std::vector<at::Tensor>()>& f,
                                   const std::vector<at::Tensor>& inputs, double tolerance,
                                   int64_t probes) {
  constexpr double kStep = 1e-5;
  auto generator = at::detail::createCPUGenerator(12345);
  std::vector<at::Tensor> weights;
  const auto objective = [&] {
    const auto outputs = f();
    auto total = at::zeros({}, at::kDouble);
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (weights.size() <= i)
        weights.push_back(at::randn(outputs[i].sizes(), generator, at::kDouble));
      total = total + (outputs[i] * weights[i].to(outputs[i].device())).sum().cpu();
    }
    return total;
  };
  const auto gradients = torch::autograd::grad({objective()}, {inputs.begin(), inputs.end()}, {},
                                               /*retain_graph=*/false,
                                               /*create_graph=*/false, /*allow_unused=*/true);
  c10::NoGradGuard no_grad;
  for (size_t k = 0; k < inputs.size(); ++k) {
    if (!gradients[k].defined())
      return testing::AssertionFailure() << "input " << k << " has no gradient";
    const auto& x = inputs[k];
    if (x.scalar_type() != at::kDouble)
      return testing::AssertionFailure() << "input " << k << " is not double";
    const auto flat = x.view({-1}), gradient = gradients[k].reshape({-1});
    const auto scale =
        std::max(1.0, gradient.numel() > 0 ? gradient.abs().max().item<double>() : 0.0);
    const int64_t stride = std::max<int64_t>(1, flat.numel() / probes);
    for (int64_t i = 0; i < flat.numel(); i += stride) {
      const double old = flat[i].item<double>();
      flat[i] = old + kStep;
      const double up = objective().item<double>();
      flat[i] = old - kStep;
      const double down = objective().item<double>();
      flat[i] = old;
      const double numeric = (up - down) / (2 * kStep), analytic = gradient[i].item<double>();
      if (!(std::abs(numeric - analytic) <= tolerance * scale)) {
        return testing::AssertionFailure()
               << "input " << k << " element " << i << ": analytic " << analytic << ", numeric "
               << numeric << ", scale " << scale;
      }
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace halcyon::test
