// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/exchange.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "halcyon/base/error.h"
#include "halcyon/parallel/companion.h"
#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

// Through shared memory, and as between machines.
class ExchangeBy : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { setenv("HALCYON_SHARED_MEMORY", GetParam(), 1); }
  void TearDown() override { unsetenv("HALCYON_SHARED_MEMORY"); }
  static void check(const Group& group) {
    EXPECT_EQ(queues_of(group) != nullptr, std::string(GetParam()) == "1");
  }
};

at::Tensor numbers(int64_t count, int64_t seed) {
  return at::arange(count, at::kInt) * 7 + seed;
}

// Large and small ones in turn: more than a ring holds, so that a small one could overtake.
TEST_P(ExchangeBy, MessagesOfATagArriveInOrder) {
  test::on_ranks(3, [](const Group& group) {
    meet(group, "test");
    check(group);
    for (int64_t round = 0; round < 3; ++round) {
      Exchange exchange(group, "test", 5 + round);
      std::vector<std::pair<at::Tensor, at::Tensor>> arriving;
      const std::vector<int64_t> counts{3, 700'000, 1, 40'000, 5, 2'000'000, 7};
      for (int64_t r = 0; r < group.size(); ++r) {
        if (r == group.rank()) continue;
        for (const auto count : counts) {
          arriving.emplace_back(at::empty({count}, at::kInt), numbers(count, r + count));
          exchange.receive(r, arriving.back().first);
        }
      }
      for (int64_t r = 0; r < group.size(); ++r) {
        if (r == group.rank()) continue;
        for (const auto count : counts) exchange.send(r, numbers(count, group.rank() + count));
      }
      exchange.post();
      exchange.wait();
      for (const auto& [came, wanted] : arriving) EXPECT_TRUE(came.equal(wanted));
    }
  });
}

// A backward and the reduction of its gradients: two threads of a rank, each with its own tags.
TEST_P(ExchangeBy, ThreadsOfARankDoNotMixTheirMessages) {
  test::on_ranks(2, [](const Group& group) {
    meet(group, "test");
    const auto talk = [&](int64_t tag, int64_t count) {
      for (int64_t i = 0; i < 40; ++i) {
        auto came = at::empty({count}, at::kInt);
        Exchange exchange(group, "test", tag);
        exchange.receive(1 - group.rank(), came);
        exchange.send(1 - group.rank(), numbers(count, tag + i + group.rank()));
        exchange.post();
        exchange.wait();
        EXPECT_TRUE(came.equal(numbers(count, tag + i + 1 - group.rank())));
      }
    };
    std::thread other([&] { talk(1000, 300'000); });
    talk(2000, 70);
    other.join();
  });
}

// A rank that is ahead writes before the other asks, which asks in another order.
TEST_P(ExchangeBy, WhatComesEarlyWaits) {
  test::on_ranks(2, [](const Group& group) {
    meet(group, "test");
    Exchange eighth(group, "test", 8), ninth(group, "test", 9);
    auto eight = at::empty({1000}, at::kInt), nine = at::empty({1000}, at::kInt);
    if (group.rank() == 0) {
      ninth.send(1, numbers(1000, 9));
      eighth.send(1, numbers(1000, 8));
      ninth.post();
      eighth.post();
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      eighth.receive(0, eight);
      ninth.receive(0, nine);
      eighth.post();
      eighth.wait();
      EXPECT_TRUE(eight.equal(numbers(1000, 8)));
      ninth.post();
    }
    ninth.wait();
    if (group.rank() == 0) eighth.wait();
    EXPECT_TRUE(group.rank() == 0 || nine.equal(numbers(1000, 9)));
  });
}

INSTANTIATE_TEST_SUITE_P(Transports, ExchangeBy, testing::Values("1", "0"));

TEST(SharedMemory, AMessageThatIsTooLongIsAnError) {
  EXPECT_THROW(test::on_ranks(2,
                              [](const Group& group) {
                                meet(group, "test");
                                Exchange exchange(group, "test", 5);
                                const auto one = at::zeros({group.rank() == 0 ? 10 : 5}, at::kInt);
                                auto came = at::empty({5}, at::kInt);
                                exchange.receive(1 - group.rank(), came);
                                exchange.send(1 - group.rank(), one);
                                exchange.post();
                                exchange.wait();
                              }),
               Error);
}

}  // namespace
}  // namespace halcyon::parallel
