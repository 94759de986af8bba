// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/gelu/gelu.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "halcyon/ops/gelu/cpu_kernel.h"
#include "tests/ops/ops_test.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"

namespace halcyon {
namespace {

using test::near;

// Values where it bends, where it is flat, and beyond what its powers can hold; sizes about
// vectors and threads' pieces.
at::Tensor values(int64_t size) {
  at::manual_seed(1);
  auto x = at::randn({size}, at::kDouble) * 3;
  if (size > 40) x.narrow(0, 0, 33).copy_(at::linspace(-40, 40, 33, at::kDouble));
  return x;
}

at::Tensor slope(const at::Tensor& x) {
  return at::gelu_backward(at::ones_like(x), x, "tanh");
}

TEST(Gelu, KernelsAgreeWithTorchInDouble) {
  for (const auto level : test::levels()) {
    const auto table = at_level(level, gelu_detail::kernels_default, gelu_detail::kernels_avx2,
                                gelu_detail::kernels_avx512)();
    for (const int64_t size : {0, 1, 15, 16, 17, 100, 1003}) {
      SCOPED_TRACE(testing::Message() << "level " << static_cast<int>(level) << " size " << size);
      const auto x = values(size).to(at::kFloat), exact = x.to(at::kDouble), g = at::randn({size});
      const auto y = at::empty_like(x), grad = at::empty_like(x);
      table.f32.forward(size, x.const_data_ptr<float>(), y.mutable_data_ptr<float>());
      table.f32.backward(size, g.const_data_ptr<float>(), x.const_data_ptr<float>(),
                         grad.mutable_data_ptr<float>());
      if (size == 0) continue;
      EXPECT_TRUE(near(y, at::gelu(exact, "tanh"), 3e-7));
      EXPECT_TRUE(near(grad, slope(exact) * g, 1e-6));
    }
  }
}

TEST(Gelu, EveryTypeAndStride) {
  const auto exact = values(1000).view({20, 50});
  for (const auto& [type, bound] : {std::pair(at::kFloat, 3e-7),
                                    {at::kDouble, 1e-14},
                                    {at::kBFloat16, 4e-3},
                                    {at::kHalf, 5e-4}}) {
    for (const bool strided : {false, true}) {
      const auto given = strided ? exact.t() : exact;
      const auto x = given.to(type).detach().requires_grad_();
      const auto wide = x.detach().to(at::kDouble);
      const auto y = gelu_tanh(x);
      EXPECT_EQ(y.scalar_type(), type);
      EXPECT_TRUE(near(y, at::gelu(wide, "tanh"), bound));
      const auto g = at::randn(y.sizes()).to(type);
      y.backward(g);
      EXPECT_TRUE(near(x.grad(), slope(wide) * g.to(at::kDouble), bound * 2));
    }
  }
}

TEST(Gelu, FarOutItIsZeroOrItsArgument) {
  const float far = std::numeric_limits<float>::max(), inf = std::numeric_limits<float>::infinity();
  const auto x = at::tensor({-far, -1e19f, -50.f, 50.f, 1e19f, far, inf}).requires_grad_();
  const auto y = gelu_tanh(x);
  EXPECT_TRUE(
      test::identical(y.detach().abs(), at::tensor({0.f, 0.f, 0.f, 50.f, 1e19f, far, inf})));
  y.backward(at::ones_like(y));
  EXPECT_TRUE(test::identical(x.grad(), at::tensor({0.f, 0.f, 0.f, 1.f, 1.f, 1.f, 1.f})));
  EXPECT_TRUE(gelu_tanh(at::full({3}, NAN)).isnan().all().item<bool>());
}

TEST(Gelu, DifferentiableTwice) {
  const auto x = values(60).to(at::kFloat).requires_grad_();
  const auto first =
      torch::autograd::grad({gelu_tanh(x).sum()}, {x}, {}, std::nullopt, /*create_graph=*/true)[0];
  const auto second = torch::autograd::grad({first.sum()}, {x})[0];
  const auto wide = x.detach().to(at::kDouble).requires_grad_();
  const auto wide_first = torch::autograd::grad({at::gelu(wide, "tanh").sum()}, {wide}, {},
                                                std::nullopt, /*create_graph=*/true)[0];
  EXPECT_TRUE(near(second, torch::autograd::grad({wide_first.sum()}, {wide})[0], 1e-5));
}

}  // namespace
}  // namespace halcyon
