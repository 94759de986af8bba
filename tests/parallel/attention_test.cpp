// SPDX-License-Identifier: Apache-2.0
// What the operations send; their numbers are compared with one process in
// tests/python/test_parallel_{index,healpix,attention}.py.
#include "halcyon/parallel/attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/gather_index.h"
#include "halcyon/parallel/neighborhood.h"
#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

constexpr int64_t kHeader = 512;  // bytes

int64_t bytes_of(int64_t ranks, const std::function<void(const Group&)>& f) {
  const auto before = traffic().bytes;
  test::on_ranks(ranks, f);
  return traffic().bytes - before - ranks * (ranks - 1) * kHeader;
}

TEST(GatherIndex, AnEntryTravelsOnce) {
  const auto sent = bytes_of(2, [](const Group& group) {
    const auto index = at::tensor({0, 3, 0, 3, 0, -1}, at::kLong);
    gather_index(at::zeros({2, 8}), index, 0, group);
  });
  // each way a count, one number and one entry
  EXPECT_EQ(sent, 2 * (8 + 8 + 8 * 4));
}

TEST(Na1d, OnlyWhatTheWindowsReachIsSent) {
  const auto sent = bytes_of(2, [](const Group& group) {
    const auto x = at::zeros({1, 50, 2, 4});
    NeighborhoodOptions options;
    options.kernel_size = {7};
    na1d(x, x, x, options, 1, group);
  });
  EXPECT_EQ(sent, 2 * 3 * 2 * (2 * 4 * 4));  // ranks, rows, key and value
}

TEST(RingAttention, WithCausalityABlockGoesNoFurtherThanItIsSeen) {
  const auto of = [](bool causal) {
    return bytes_of(3, [causal](const Group& group) {
      const auto x = at::zeros({1, 2, 5, 4});
      scaled_dot_product_attention(x, x, x, causal, {}, -2, group);
    });
  };
  const int64_t block = 2 * (2 * 5 * 4 * 4);
  EXPECT_EQ(of(false), 3 * 2 * block);
  EXPECT_EQ(of(true), (2 + 1) * block);
}

// The same bits again and again: nothing depends on who comes first.
TEST(RingAttention, GradientsDoNotDependOnTiming) {
  std::vector<at::Tensor> first(4);
  for (int repeat = 0; repeat < 5; ++repeat) {
    test::on_ranks(4, [&](const Group& group) {
      const auto x = (at::arange(2 * 7 * 4, at::kFloat) + group.rank()).sin().view({1, 2, 7, 4});
      const auto q = x.clone().requires_grad_();
      scaled_dot_product_attention(q, q, q, false, {}, -2, group).square().sum().backward();
      if (repeat == 0) first[group.rank()] = q.grad();
      if (repeat > 0 && !q.grad().equal(first[group.rank()]))
        throw std::runtime_error("other bits");
    });
  }
}

}  // namespace
}  // namespace halcyon::parallel
