// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/ops/pixel_attention_case.h"
#include "tests/support/compare.h"

// Observations on the sphere as they come: most pixels have few, some thousands, a third none, and
// one has a fiftieth of all.
namespace halcyon {
namespace {

using test::AttentionInputs;

struct Large {
  int64_t pixels, rows, heads, dim, width;
  int64_t crowded() const { return pixels - 8304; }
  // The first, the last and others, among them the one with most rows.
  std::vector<int64_t> sample() const {
    return {0, 1, 100, 5000, pixels / 3, pixels / 3 * 2 - 1, crowded(), pixels - 2, pixels - 1};
  }
};

AttentionInputs make_inputs(const Large& c) {
  at::manual_seed(1);
  auto flat = (at::rand({c.rows}, at::kDouble).pow(3) * (c.pixels * 2 / 3)).to(at::kLong);
  flat.slice(0, 0, c.rows / 50).fill_(c.crowded());
  flat.slice(0, c.rows - 3).fill_(c.pixels - 1);
  const auto counts = std::get<1>(sort_and_pack(flat, c.pixels));
  AttentionInputs in({c.heads, 1, c.dim, c.width, {1}}, at::kFloat);
  in.q = at::randn({c.pixels, c.heads, c.dim});
  in.tokens = at::randn({c.rows, c.width});
  in.cu = counts_to_cu_seqlens(counts);
  in.require_grad();
  return in;
}

double scale_of(const Large& c) {
  return 1 / std::sqrt(static_cast<double>(c.dim));
}

// Outputs and the gradients of queries and tokens beside the brute force in double.
void expect_sampled(const Large& c, const AttentionInputs& in, const at::Tensor& y,
                    const at::Tensor& grad_out) {
  for (const int64_t p : c.sample()) {
    SCOPED_TRACE(p);
    const auto begin = in.cu[p].item<int64_t>(), end = in.cu[p + 1].item<int64_t>();
    AttentionInputs one({c.heads, 1, c.dim, c.width, {end - begin}});
    one.q = in.q.detach().slice(0, p, p + 1).to(at::kDouble);
    one.tokens = in.tokens.detach().slice(0, begin, end).to(at::kDouble);
    one.w_k = in.w_k.detach().to(at::kDouble);
    one.w_v = in.w_v.detach().to(at::kDouble);
    one.b_v = in.b_v.detach().to(at::kDouble);
    one.require_grad();
    const auto expected = one.brute_force(scale_of(c));
    EXPECT_TRUE(test::near(y.slice(0, p, p + 1), expected, test::kLayer));
    if (begin == end) continue;
    expected.backward(grad_out.slice(0, p, p + 1).to(at::kDouble));
    EXPECT_TRUE(test::near(in.q.grad().slice(0, p, p + 1), one.q.grad(), test::kGradient));
    EXPECT_TRUE(
        test::near(in.tokens.grad().slice(0, begin, end), one.tokens.grad(), test::kGradient));
  }
}

// The last head of every pixel beside the reference, a share of the pixels at a time.
void expect_last_head(const Large& c, const AttentionInputs& in, const at::Tensor& y) {
  constexpr int64_t kShares = 24;
  for (int64_t share = 0; share < kShares; ++share) {
    const int64_t first = c.pixels * share / kShares, last = c.pixels * (share + 1) / kShares;
    const auto offsets = in.cu.slice(0, first, last + 1).to(at::kLong);
    const auto begin = offsets[0].item<int64_t>(), end = offsets[-1].item<int64_t>();
    const auto head = [&](const at::Tensor& t) {
      return t.detach().slice(0, first, last).slice(1, c.heads - 1);
    };
    const auto expected =
        pixel_attention_reference(head(in.q), in.tokens.detach().slice(0, begin, end), in.w_k,
                                  in.w_v, offsets - begin, 1, scale_of(c), in.b_v);
    EXPECT_TRUE(test::near(head(y), expected, test::kLayer)) << "pixels from " << first;
  }
}

// The sum of products in double, and of their sizes.
struct Product {
  double sum = 0, size = 0;
  Product(const at::Tensor& a, const at::Tensor& b) {
    constexpr int64_t kRows = 1 << 20;
    for (int64_t i = 0; i < a.size(0); i += kRows) {
      const auto x =
          a.detach().slice(0, i, i + kRows).to(at::kDouble).mul_(b.detach().slice(0, i, i + kRows));
      sum += x.sum().item<double>();
      size += x.abs_().sum().item<double>();
    }
  }
};

// What every element of the outputs and gradients enters. The output is linear in the values, which
// are linear in the tokens and in W_v; scores are bilinear, in the queries and in W_k too.
void expect_checksums(const AttentionInputs& in, const at::Tensor& y, const at::Tensor& grad_out) {
  const Product out(y, grad_out), q(in.q, in.q.grad()), tokens(in.tokens, in.tokens.grad());
  const Product w_k(in.w_k, in.w_k.grad()), w_v(in.w_v, in.w_v.grad()), b_v(in.b_v, in.b_v.grad());
  constexpr double kBound = 1e-6;
  EXPECT_NEAR(w_v.sum + b_v.sum, out.sum, kBound * out.size);
  EXPECT_NEAR(w_k.sum, q.sum, kBound * q.size);
  EXPECT_NEAR(w_k.sum + w_v.sum, tokens.sum, kBound * tokens.size);
  // every non-empty pixel passes its gradient to the value bias, once a head
  const auto filled = in.cu.diff().gt(0).nonzero().squeeze(1);
  const auto bias = grad_out.index_select(0, filled).to(at::kDouble).sum(at::IntArrayRef({0, 1}));
  EXPECT_TRUE(test::near(in.b_v.grad(), bias, test::kGradient));
}

void expect_parity(const Large& c) {
  const auto in = make_inputs(c);
  const auto y = in.run();
  const auto grad_out = at::randn_like(y);
  y.backward(grad_out);
  expect_sampled(c, in, y, grad_out);
  expect_last_head(c, in, y);
  expect_checksums(in, y, grad_out);
}

TEST(PixelAttentionLarge, MillionObservations) {
  expect_parity({98304, 1'000'000, 16, 8, 32});
}

TEST(PixelAttentionLarge, TenMillionObservations) {
  expect_parity({196608, 10'000'000, 8, 8, 16});
}

}  // namespace
}  // namespace halcyon
