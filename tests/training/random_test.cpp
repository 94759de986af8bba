// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "halcyon/base/error.h"

namespace halcyon::training {
namespace {

TEST(Random, IsPhilox) {
  // Random123's known answer for a counter and a key of zeros
  Random zero(0);
  EXPECT_EQ(zero(), 0x6627e8d5u);
  EXPECT_EQ(zero(), 0xe169c58du);
  EXPECT_EQ(zero(), 0xbc57ac4cu);
  EXPECT_EQ(zero(), 0x9b00dbd8u);
}

TEST(Random, StreamsAreFunctionsOfTheirNames) {
  Random a(7, {1, 2}), b(7, {1, 2}), c(7, {2, 1}), d(8, {1, 2}), e(7, {1, 2, 0});
  const uint32_t first = a();
  EXPECT_EQ(first, b());
  EXPECT_NE(first, c());
  EXPECT_NE(first, d());
  EXPECT_NE(first, e());
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 200; ++i) {
    for (uint64_t j = 0; j < 200; ++j) seen.insert(mix(0, {i, j}));
  }
  EXPECT_EQ(seen.size(), 40000u);
}

TEST(Random, NumbersHaveTheirMoments) {
  Random random(3);
  const at::Tensor u = random.uniform_tensor({200000}), n = random.normal_tensor({200000});
  EXPECT_NEAR(u.mean().item<double>(), 0.5, 0.003);
  EXPECT_NEAR(u.var().item<double>(), 1.0 / 12, 0.001);
  EXPECT_GE(u.min().item<double>(), 0);
  EXPECT_LT(u.max().item<double>(), 1);
  EXPECT_NEAR(n.mean().item<double>(), 0, 0.01);
  EXPECT_NEAR(n.var().item<double>(), 1, 0.02);
  EXPECT_NEAR(n.pow(4).mean().item<double>(), 3, 0.1);
  EXPECT_TRUE(n.isfinite().all().item<bool>());
}

TEST(Random, WholeNumbersAreFair) {
  Random random(4);
  std::vector<int> count(7, 0), drawn(3, 0);
  for (int i = 0; i < 70000; ++i) ++count[static_cast<std::size_t>(random.below(7))];
  for (const int c : count) EXPECT_NEAR(c, 10000, 400);
  for (int i = 0; i < 40000; ++i) ++drawn[static_cast<std::size_t>(random.weighted({1, 0, 3}))];
  EXPECT_NEAR(drawn[0], 10000, 400);
  EXPECT_EQ(drawn[1], 0);
  EXPECT_EQ(random.below(1), 0);
  EXPECT_THROW(random.below(0), Error);
  EXPECT_THROW(random.weighted({0, 0}), Error);
  EXPECT_THROW(random.weighted({-1, 2}), Error);
}

TEST(Random, PermutationsAndChoices) {
  Random random(5);
  auto order = random.permutation(100);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  const auto some = random.choose(50, 10);
  EXPECT_EQ(std::set<int64_t>(some.begin(), some.end()).size(), 10u);
  EXPECT_TRUE(random.permutation(0).empty());
  EXPECT_THROW(random.choose(3, 4), Error);
}

TEST(Random, EpochsVisitEverySampleOnceEachInItsOwnOrder) {
  EpochOrder order(10, 1), again(10, 1);
  std::vector<int64_t> first, second;
  for (int64_t n = 0; n < 10; ++n) first.push_back(order(n));
  for (int64_t n = 10; n < 20; ++n) second.push_back(order(n));
  EXPECT_NE(first, second);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 10u);
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 10u);
  EXPECT_EQ(again(15), second[5]);  // without having seen the first epoch
  EXPECT_EQ(order(3), first[3]);    // and back
}

}  // namespace
}  // namespace halcyon::training
