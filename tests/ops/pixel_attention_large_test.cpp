// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/ops/pixel_attention_case.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

// A million observations, on the sphere as they come: most pixels have few, some thousands, a third
// none. Sampled pixels are compared with the reference, the gradients of their tokens and queries
// with the brute force in double.
TEST(PixelAttentionLarge, MillionObservationsAgainstSampledPixels) {
  at::manual_seed(1);
  constexpr int64_t kPixels = 98304, kRows = 1000000, kHeads = 16, kDim = 8, kWidth = 32;
  auto flat = (at::rand({kRows}).pow(3) * (kPixels * 2 / 3)).to(at::kLong);
  flat.slice(0, 0, 20000).fill_(90000);
  const auto [order, counts] = sort_and_pack(flat, kPixels);
  test::AttentionInputs in({kHeads, 1, kDim, kWidth, {1}}, at::kFloat);
  in.q = at::randn({kPixels, kHeads, kDim});
  in.tokens = at::randn({kRows, kWidth});
  in.cu = counts_to_cu_seqlens(counts);
  in.require_grad();
  const auto y = in.run();
  const auto grad_out = at::randn_like(y);
  y.backward(grad_out);

  double largest_error = 0;
  for (const int64_t p : {0L, 1L, 100L, 5000L, 30000L, 65535L, 80000L, 90000L, 98303L}) {
    SCOPED_TRACE(p);
    const auto begin = in.cu[p].item<int64_t>(), end = in.cu[p + 1].item<int64_t>();
    test::AttentionInputs one({kHeads, 1, kDim, kWidth, {end - begin}});
    one.q = in.q.detach().slice(0, p, p + 1).to(at::kDouble);
    one.tokens = in.tokens.detach().slice(0, begin, end).to(at::kDouble);
    one.w_k = in.w_k.detach().to(at::kDouble);
    one.w_v = in.w_v.detach().to(at::kDouble);
    one.b_v = in.b_v.detach().to(at::kDouble);
    one.require_grad();
    const auto expected = one.brute_force(1 / std::sqrt(double(kDim)));
    EXPECT_TRUE(test::near(y.slice(0, p, p + 1), expected, test::kLayer));
    if (begin == end) continue;
    expected.backward(grad_out.slice(0, p, p + 1).to(at::kDouble));
    EXPECT_TRUE(test::near(in.q.grad().slice(0, p, p + 1), one.q.grad(), test::kGradient));
    EXPECT_TRUE(
        test::near(in.tokens.grad().slice(0, begin, end), one.tokens.grad(), test::kGradient));
    largest_error =
        std::max(largest_error, (y.slice(0, p, p + 1) - expected).abs().max().item<double>());
  }
  RecordProperty("largest_error", std::to_string(largest_error));
  // every non-empty pixel passes its gradient to the value bias, once a head
  const auto filled = counts.gt(0).nonzero().squeeze(1);
  const auto bias = grad_out.index_select(0, filled).to(at::kDouble).sum(at::IntArrayRef({0, 1}));
  EXPECT_TRUE(test::near(in.b_v.grad(), bias, test::kGradient));
}

}  // namespace
}  // namespace halcyon
