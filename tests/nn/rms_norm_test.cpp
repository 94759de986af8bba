// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/rms_norm.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/nn/golden_module.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"

namespace halcyon::test {
namespace {

at::Tensor written_out(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps) {
  const auto y = x / (x.pow(2).mean(-1, true) + eps).sqrt();
  return weight ? y * *weight : y;
}

TEST(RmsNorm, ShapesAndStrides) {
  torch::manual_seed(1);
  const auto base = torch::randn({3, 5, 3, 2, 8}, torch::kDouble);
  const std::vector<at::Tensor> inputs{base,
                                       base.select(2, 1),  // the q of a qkv
                                       base.select(2, 1).transpose(1, 2),
                                       base.transpose(0, 4),  // strided last axis
                                       base.select(3, 0).slice(1, 0, 5, 2),
                                       base.narrow(4, 0, 1),
                                       base.flatten().narrow(0, 0, 7),
                                       torch::randn({4, 1, 6}, torch::kDouble).expand({4, 5, 6}),
                                       torch::zeros({0, 4}, torch::kDouble)};
  for (const auto& x : inputs) {
    const auto weight = torch::randn({x.size(-1)}, torch::kDouble);
    EXPECT_TRUE(near(rms_norm(x, std::nullopt, 1e-6), written_out(x, {}, 1e-6), kDouble));
    EXPECT_TRUE(near(rms_norm(x, weight, 1e-2), written_out(x, weight, 1e-2), kDouble));
    EXPECT_TRUE(rms_norm(x, weight, 1e-2).is_contiguous());
    const auto single = rms_norm(x.to(at::kFloat), weight.to(at::kFloat), 1e-6);
    EXPECT_TRUE(near(single, written_out(x, weight, 1e-6), 1e-6));
    const auto half = rms_norm(x.to(at::kBFloat16), weight.to(at::kBFloat16), 1e-6);
    EXPECT_EQ(half.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(near(half, written_out(x, weight, 1e-6), kBf16));
  }
}

TEST(RmsNorm, GradientsOnceAndTwice) {
  const auto whole = leaf({3, 4, 3, 5}), weight = leaf({5});
  const auto f = [&] {
    return std::vector{rms_norm(whole.select(2, 1), weight, 1e-3),
                       rms_norm(whole.transpose(0, 3), std::nullopt, 1e-3)};
  };
  EXPECT_TRUE(gradcheck(f, {whole, weight}));
  const auto gradient = [&] {
    const c10::AutoGradMode recorded(true);  // gradcheck takes its differences without a graph
    return torch::autograd::grad({f()[0].pow(3).sum()}, {whole, weight}, {}, true, true);
  };
  EXPECT_TRUE(gradcheck(gradient, {whole, weight}, 1e-5));
}

TEST(RmsNorm, ThreadsChangeNothing) {
  const auto x = torch::randn({5000, 24}).requires_grad_(true);
  const auto weight = torch::randn({24}).requires_grad_(true);
  const auto run = [&] {
    const auto y = rms_norm(x, weight, 1e-6);
    auto gradients = torch::autograd::grad({y.sin().sum()}, {x, weight});
    gradients.push_back(y);
    return gradients;
  };
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = run();
  at::set_num_threads(4);
  const auto four = run();
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(identical(four[i], one[i])) << i;
}

TEST(RmsNorm, Refuses) {
  EXPECT_TRUE(refuses([] { rms_norm(torch::zeros({}), {}, 1e-6); }, "rank 1 or more"));
  EXPECT_TRUE(refuses([] { rms_norm(torch::zeros({2}, torch::kLong), {}, 1e-6); }, "floating x"));
  EXPECT_TRUE(refuses(
      [] {
        rms_norm(torch::zeros({2, 3}), torch::zeros({2}), 1e-6);
      },
      "weight of 3 elements"));
}

}  // namespace
}  // namespace halcyon::test
