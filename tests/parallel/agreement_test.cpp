// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/agreement.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

// What each rank of three was told.
template <class F>
std::vector<std::string> told(const F& prepare, const char* other_name = "operation") {
  std::vector<std::string> texts(3);
  test::on_ranks(3, [&](const Group& group) {
    for (const bool again : {false, true}) {  // the group stays usable
      Agreement agreement(group, group.rank() == 1 && !again ? other_name : "operation");
      const auto rank = again ? 0 : group.rank();
      agreement.prepare([&] { prepare(agreement, rank); });
      agreement.post();
      try {
        agreement.finish();
        EXPECT_TRUE(again || texts[group.rank()].empty());
      } catch (const Error& e) {
        EXPECT_FALSE(again) << e.what();
        texts[group.rank()] = e.what();
      }
    }
  });
  return texts;
}

void expect_all(const std::vector<std::string>& texts, const std::string& text) {
  for (const auto& one : texts) EXPECT_EQ(one, text);
}

TEST(Agreement, TellsEveryRankTheOthersValues) {
  test::on_ranks(3, [](const Group& group) {
    Agreement agreement(group, "operation");
    size_t at = 0;
    agreement.prepare([&] {
      agreement.same("one", static_cast<int64_t>(1));
      at = agreement.each(10 * group.rank());
    });
    agreement.post();
    agreement.finish();
    EXPECT_EQ(agreement.of_all(at), (std::vector<int64_t>{0, 10, 20}));
    EXPECT_GT(agreement.tag(), 0);
  });
}

TEST(Agreement, NamesWhatDiffersAndWhere) {
  expect_all(
      told([](Agreement& a, int64_t rank) {
        a.same("halo_width", rank == 2 ? int64_t{2} : int64_t{1});
      }),
      "[operation] expected the same halo_width on every rank, got 1 on rank 0 and 2 on rank "
      "2");
  expect_all(told([](Agreement& a, int64_t rank) {
               a.same_but("x", at::zeros({2, 3}, rank == 1 ? at::kHalf : at::kFloat), 0);
             }),
             "[operation] expected the same dtype of x on every rank, got Float on rank 0 and Half "
             "on rank 1");
  expect_all(
      told([](Agreement& a, int64_t rank) { a.same("eps", rank == 1 ? 0.5 : 0.25); }),
      "[operation] expected the same eps on every rank, got 0.25 on rank 0 and 0.5 on rank 1");
}

TEST(Agreement, ARefusalOfOneIsThatOfAll) {
  expect_all(told([](Agreement&, int64_t rank) {
               HALCYON_CHECK(rank != 2, "operation", "expected less, got {}", rank);
             }),
             "[operation] expected less, got 2");
}

TEST(Agreement, RefusesMoreThanAHeaderHolds) {
  expect_all(told([](Agreement& a, int64_t rank) {
               for (int64_t i = 0; i < (rank == 1 ? 56 : 1); ++i) a.same("axis", i);
             }),
             "[operation] expected tensors of fewer axes: the ranks compare at most 55 sizes and "
             "options, got 56");
}

TEST(Agreement, FindsRanksThatCallAnotherOperation) {
  const std::string text =
      "expected every rank to call the same operation, got operation on rank 0 and another on rank "
      "1";
  EXPECT_EQ(told([](Agreement&, int64_t) {}, "another"),
            (std::vector<std::string>{"[operation] " + text, "[another] " + text,
                                      "[operation] " + text}));
}

}  // namespace
}  // namespace halcyon::parallel
