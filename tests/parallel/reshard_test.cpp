// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/reshard.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/model/block.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/time_space.h"
#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

at::Tensor part(const at::Tensor& x, const std::vector<int64_t>& sizes, int64_t rank, int64_t dim) {
  return x.split_with_sizes(sizes, dim)[rank];
}

// Frames of this many ranks, one of them without any.
std::vector<int64_t> uneven(int64_t frames, int64_t ranks) {
  std::vector<int64_t> sizes(ranks, 1);
  sizes.back() = ranks > 1 ? 0 : 1;
  for (const auto size : std::vector(sizes)) frames -= size;
  sizes.front() += frames;
  return sizes;
}

TEST(Reshard, BackwardIsTheAdjoint) {
  for (const int64_t ranks : {1, 2, 3, 4}) {
    std::vector<double> forward(ranks), backward(ranks);
    test::on_ranks(ranks, [&](const Group& group) {
      const auto sizes = uneven(5, ranks);
      const auto x = at::randn({2, sizes[group.rank()], 7, 3}, at::kDouble).requires_grad_();
      const auto out = shard_x(x, group);
      const auto y = at::randn(out.sizes(), at::kDouble);
      const auto product = (out * y).sum();
      product.backward();
      forward[group.rank()] = product.item<double>();
      backward[group.rank()] = (x.detach() * x.grad()).sum().item<double>();
    });
    double difference = 0;
    for (int64_t r = 0; r < ranks; ++r) difference += forward[r] - backward[r];
    EXPECT_NEAR(difference, 0, 1e-11) << ranks;
  }
}

TEST(Reshard, SendsWhatChangesItsRankOnce) {
  const auto before = traffic();
  test::on_ranks(3, [](const Group& group) { shard_x(at::zeros({1, 2, 9, 4}), group); });
  // of 6 x 9 x 4 floats a third stays; six headers of 512 bytes; small blocks go as one message
  EXPECT_EQ(traffic().bytes - before.bytes, 6 * 9 * 4 * 4 * 2 / 3 + 6 * 512);
  EXPECT_EQ(traffic().messages - before.messages, 6 + 6);
}

// A block of 3 ranks: two reshards forward, two backward, and nothing else moves.
TEST(Reshard, TwiceABlock) {
  VideoDiTBlockOptions options;
  options.hidden_size = 16;
  options.num_heads = 2;
  options.condition_embed_dim = 4;
  options.temporal_attention = true;
  options.use_rope = false;
  options.is_causal = true;
  options.adaln_zero_init = false;
  const int64_t frames = 5, pixels = 7;
  VideoDiTBlock block(options);
  block->to(at::kDouble);
  const auto h = at::randn({2, frames, pixels, 16}, at::kDouble),
             c = at::randn({2, 4}, at::kDouble);
  const auto expected = block->forward(h, c).detach();
  const auto time = uneven(frames, 3), space = split_sizes(pixels, 3);
  int64_t moved = 0;
  for (int64_t r = 0; r < 3; ++r) moved += time[r] * (pixels - space[r]) * 2 * 16 * 8;
  const auto with_blocks = [&](const std::function<void(VideoDiTBlock&, const at::Tensor&,
                                                        const FramesOnRanks&, int64_t)>& f) {
    const auto before = traffic().bytes;
    test::on_ranks(3, [&](const Group& group) {
      VideoDiTBlock mine(options);
      mine->to(at::kDouble);
      {
        const at::NoGradGuard no_grad;
        for (const auto& p : block->named_parameters()) {
          mine->named_parameters()[p.key()].copy_(p.value());
        }
      }
      const auto layout = std::make_shared<TimeSpace>();
      *layout = {"block", group, 0x10000001, time, space};
      f(mine, part(h, time, group.rank(), 1), layout, group.rank());
    });
    return traffic().bytes - before;
  };
  const auto near = [&](const at::Tensor& out, int64_t rank) {
    EXPECT_TRUE(out.allclose(part(expected, time, rank, 1), 1e-12, 1e-12)) << rank;
  };
  EXPECT_EQ(with_blocks([&](auto& mine, const auto& x, const auto& layout, int64_t rank) {
              near(mine->forward(x, c, {}, {}, {}, layout), rank);
            }),
            2 * moved);
  EXPECT_EQ(with_blocks([&](auto& mine, const auto& x, const auto& layout, int64_t) {
              mine->forward(x, c, {}, {}, {}, layout).sum().backward();
            }),
            4 * moved);
  EXPECT_EQ(with_blocks([&](auto& mine, const auto& x, const auto& layout, int64_t rank) {
              const auto place = x.clone(at::MemoryFormat::Contiguous);
              mine->eval();
              mine->forward_in_place(place, c, {}, {}, {}, layout);
              near(place, rank);
            }),
            2 * moved);
}

}  // namespace
}  // namespace halcyon::parallel
