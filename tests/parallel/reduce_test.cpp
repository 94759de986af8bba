// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/reduce.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <thread>

#include "halcyon/base/error.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/norms.h"
#include "halcyon/parallel/reduce_gradients.h"
#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

constexpr int64_t kTag = 77;

at::Tensor of_rank(int64_t rank, int64_t n, at::ScalarType dtype) {
  return (at::arange(n, at::kDouble) * (0.37 + static_cast<double>(rank))).sin().to(dtype);
}

TEST(SumOverRanks, AddsInRankOrderToTheSameBits) {
  for (const int64_t ranks : {1, 2, 3, 4}) {
    for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
      for (const int64_t n : {0, 1, 5, 4096, 20001}) {  // in one round and by chunks
        auto wanted = at::zeros({n}, dtype == at::kDouble ? at::kDouble : at::kFloat);
        for (int64_t r = 0; r < ranks; ++r) wanted += of_rank(r, n, dtype);
        std::vector<at::Tensor> sums(ranks);
        test::on_ranks(ranks, [&](const Group& group) {
          sums[group.rank()] = sum_over_ranks(of_rank(group.rank(), n, dtype), group, "sum", kTag);
        });
        for (const auto& sum : sums) EXPECT_TRUE(sum.equal(wanted.to(dtype))) << ranks << ' ' << n;
      }
    }
  }
}

// <sum(x), y> = <x, sum'(y)>, summed over the ranks.
TEST(SumOverRanks, BackwardIsTheAdjoint) {
  for (const int64_t ranks : {1, 2, 3, 4}) {
    for (const int64_t n : {3, 5000}) {
      std::vector<double> forward(ranks), backward(ranks);
      test::on_ranks(ranks, [&](const Group& group) {
        const auto x = at::randn({n}, at::kDouble).requires_grad_();
        const auto out = sum_over_ranks(x, group, "sum", kTag);
        const auto product = (out * at::randn({n}, at::kDouble)).sum();
        product.backward();
        forward[group.rank()] = product.item<double>();
        backward[group.rank()] = (x.detach() * x.grad()).sum().item<double>();
      });
      double difference = 0;
      for (int64_t r = 0; r < ranks; ++r) difference += forward[r] - backward[r];
      EXPECT_NEAR(difference, 0, 1e-9) << ranks << ' ' << n;
    }
  }
}

TEST(SumOverRanks, SendsLargeTensorsTwiceAtMost) {
  const int64_t n = 1 << 20;
  const auto before = traffic();
  test::on_ranks(4, [&](const Group& group) { sum_in_place(at::ones({n}), group, "sum", kTag); });
  EXPECT_EQ(traffic().bytes - before.bytes, 4 * 2 * 3 * n);  // 2 (N - 1) / N of 4 n each
  EXPECT_EQ(traffic().messages - before.messages, 4 * 2 * 3);
}

TEST(SumOverRanks, NamesASilentPeer) {
  try {
    test::on_ranks(
        3,
        [](const Group& group) {
          if (group.rank() != 1) sum_over_ranks(at::zeros({4}), group, "sum", kTag);
          if (group.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1500));
        },
        1);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::communication);
    EXPECT_TRUE(std::string(e.what()).starts_with("[sum] rank 0: no answer from rank 1 after 1."))
        << e.what();
  }
}

TEST(GroupNorm, SendsTwoNumbersAGroupAndThreeBack) {
  test::on_ranks(1, [](const Group&) {});
  const auto before = traffic();
  test::on_ranks(2, [](const Group& group) {
    const auto x = at::randn({2, 8, 6, 5}).requires_grad_();
    group_norm(x, 4, {}, {}, 1e-5, -2, group).pow(3).sum().backward();
  });
  EXPECT_EQ(traffic().messages - before.messages, 2 * 3);
  EXPECT_EQ(traffic().bytes - before.bytes, 2 * (512 + 2 * (2 * 4) * 8 + 3 * (2 * 4) * 4));
}

TEST(ReduceGradients, SumsInBuckets) {
  const auto before = traffic();
  test::on_ranks(2, [](const Group& group) {
    std::vector<at::Tensor> parameters;
    for (int i = 0; i < 50; ++i) {
      parameters.push_back(at::zeros({10}).requires_grad_());
      if (i % 2 == group.rank()) parameters.back().mutable_grad() = at::ones({10});
    }
    parameters.push_back(parameters[0]);
    reduce_gradients(parameters, group);
    for (const auto& p : parameters) EXPECT_TRUE(p.grad().equal(at::ones({10})));
  });
  EXPECT_EQ(traffic().messages - before.messages, 2 * 2);
}

}  // namespace
}  // namespace halcyon::parallel
