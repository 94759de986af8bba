// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/model/block.h"
#include "halcyon/ops/rope.h"
#include "tests/ops/ops_test.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using test::expect_error;
using test::near;

constexpr int64_t kWidth = 32, kHeads = 2, kTokenWidth = 5;

struct Shape {
  int64_t samples, frames, pixels;
};

struct Case {
  VideoDiTBlock block;
  at::Tensor hidden, c;
  SpatialAttentionKwargs attention;
  std::any cross;
  RopeTables rope;

  at::Tensor whole() {
    const at::NoGradGuard no_grad;
    return block->forward(hidden, c, attention, cross, rope);
  }
  at::Tensor in_place() {
    auto h = hidden.clone();
    block->forward_in_place(h, c, attention, cross, rope);
    return h;
  }
};

VideoDiTBlockOptions all_parts() {
  VideoDiTBlockOptions options;
  options.hidden_size = kWidth;
  options.num_heads = kHeads;
  options.condition_embed_dim = 3;
  options.temporal_attention = true;
  options.use_rope = true;
  options.is_causal = true;
  options.attn_kwargs = {"RMSNorm", false};
  options.adaln_zero_init = false;
  options.cross_attention = pixel_cross_attention({kWidth, kTokenWidth, 16, 1, 2, true});
  return options;
}

// Random counts of observations, some pixels without.
Case make(const Shape& s, VideoDiTBlockOptions options, at::ScalarType type = at::kFloat) {
  at::manual_seed(4);
  VideoDiTBlock block(std::move(options));
  block->eval();
  block->to(type);
  const int64_t pixels = s.samples * s.frames * s.pixels;
  const auto counts = at::randint(-2, 4, {pixels}, at::kLong).clamp_min(0);
  const auto offsets = at::cat({at::zeros({1}, at::kLong), counts.cumsum(0)});
  const auto tokens = at::randn({offsets[-1].item<int64_t>(), kTokenWidth}).to(type);
  const auto [cos, sin] = rope_tables(kWidth / kHeads, s.frames, 100);
  return {block,
          at::randn({s.samples, s.frames, s.pixels, kWidth}).to(type),
          at::randn({s.samples, 3}).to(type),
          {},
          PixelCrossAttentionKwargs{tokens, offsets, 3},
          {cos, sin}};
}

// Pieces of many frames, of one, and frames, pixels and rows cut within a sample.
const std::vector<Shape> kShapes{{1, 1, 1}, {2, 3, 7}, {5, 3, 1000}, {2, 5, 2500}, {1, 2, 6200}};

TEST(BlockInPlace, AgreesWithTheWhole) {
  for (const auto& shape : kShapes) {
    SCOPED_TRACE(testing::Message() << shape.samples << " " << shape.frames << " " << shape.pixels);
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      auto c = make(shape, all_parts(), type);
      EXPECT_TRUE(near(c.in_place(), c.whole(), type == at::kFloat ? 1e-5 : 2e-2));
    }
  }
}

TEST(BlockInPlace, CrossAttentionWithoutBiases) {
  auto options = all_parts();
  options.cross_attention = pixel_cross_attention({kWidth, kTokenWidth, 16, 1, 2, false});
  for (const auto& shape : kShapes) {
    auto c = make(shape, options);
    EXPECT_TRUE(near(c.in_place(), c.whole(), 1e-5));
  }
}

TEST(BlockInPlace, MasksAreCutToTheirFrames) {
  const Shape shape{2, 13, 1000};
  auto options = all_parts();
  options.cross_attention = {};
  options.temporal_attention = false;
  auto c = make(shape, options);
  const auto mask = at::rand({26, 1, 1000, 1000}) < 0.5;
  for (const auto& m : {mask, mask.narrow(0, 0, 1), mask[0][0]}) {
    c.attention.attn_mask = m;
    EXPECT_TRUE(near(c.in_place(), c.whole(), 1e-5)) << m.sizes();
  }
}

// A module that cannot say which kwargs belong to some pixels attends to all at once.
TEST(BlockInPlace, ForeignCrossAttentionIsCalledOnce) {
  static int calls = 0;
  struct Cross : CrossAttentionModuleBase {
    at::Tensor attend(const at::Tensor& x, const std::any&) override {
      ++calls;
      return x.cumsum(2);
    }
  };
  auto options = all_parts();
  options.cross_attention = [] { return std::make_shared<Cross>(); };
  auto c = make({2, 3, 4500}, options);
  c.cross = 1;
  const auto whole = c.whole();
  calls = 0;
  EXPECT_TRUE(near(c.in_place(), whole, 1e-4));
  EXPECT_EQ(calls, 1);
}

TEST(BlockInPlace, RefusesWhatItCannotChange) {
  auto c = make({1, 2, 4}, all_parts());
  expect_error("contiguous hidden_states", [&] {
    c.block->forward_in_place(c.hidden.transpose(1, 2).contiguous().transpose(1, 2), c.c, {},
                              c.cross, c.rope);
  });
  c.block->train();
  expect_error("eval mode", [&] { c.in_place(); });
}

}  // namespace
}  // namespace halcyon
