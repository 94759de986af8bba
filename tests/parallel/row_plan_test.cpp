// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/row_plan.h"

#include <gtest/gtest.h>

#include "halcyon/base/error.h"
#include "halcyon/parallel/group.h"

namespace halcyon::parallel {
namespace {

// The global row that stands at each row of the result, -1 for zeros.
std::vector<int64_t> rows_from(const std::vector<Run>& runs, const std::vector<int64_t>& starts,
                               int64_t rows) {
  std::vector<int64_t> from(rows, -1);
  for (const auto& run : runs) {
    for (int64_t i = 0; i < run.rows; ++i) {
      const int64_t row = run.reversed ? run.source + run.rows - 1 - i : run.source + i;
      EXPECT_LT(row, starts[run.owner + 1] - starts[run.owner]);
      EXPECT_EQ(from.at(run.target + i), -1) << "row written twice";
      from.at(run.target + i) = starts[run.owner] + row;
    }
  }
  return from;
}

// The definition, a row at a time; -2: left out.
int64_t source_of(int64_t i, int64_t n, Edge edge) {
  if (0 <= i && i < n) return i;
  if (edge == Edge::periodic) return ((i % n) + n) % n;
  if (edge == Edge::reflect) return i < 0 ? -i : 2 * (n - 1) - i;
  if (edge == Edge::fold) return i < 0 ? -1 - i : 2 * n - 1 - i;
  return edge == Edge::zero ? -1 : -2;
}

TEST(RowPlan, FollowsTheDefinitionForEveryCutIntervalAndEdge) {
  for (const auto& sizes : std::vector<std::vector<int64_t>>{
           {5}, {3, 2}, {0, 5}, {5, 0}, {1, 0, 4}, {2, 2, 1}, {0, 0, 5, 0}, {1, 1, 1, 1, 1}}) {
    const auto starts = starts_of(sizes);
    for (const auto edge : {Edge::zero, Edge::periodic, Edge::reflect, Edge::fold, Edge::none}) {
      const int64_t reach = edge == Edge::reflect ? 4 : edge == Edge::fold ? 5 : 12;
      for (int64_t lo = -reach; lo <= 5 + reach; ++lo) {
        for (int64_t hi = lo; hi <= 5 + reach; ++hi) {
          std::vector<int64_t> wanted;
          for (int64_t i = lo; i < hi; ++i) {
            if (source_of(i, 5, edge) != -2) wanted.push_back(source_of(i, 5, edge));
          }
          const int64_t rows = rows_of({lo, hi}, 5, edge);
          ASSERT_EQ(rows, static_cast<int64_t>(wanted.size()));
          EXPECT_EQ(rows_from(runs_of({lo, hi}, starts, edge, "test"), starts, rows), wanted)
              << name_of(edge) << " [" << lo << ", " << hi << ")";
        }
      }
    }
  }
}

TEST(RowPlan, RefusesWhatAnEdgeDoesNotReach) {
  EXPECT_THROW(runs_of({-5, 0}, {0, 5}, Edge::reflect, "test"), Error);
  EXPECT_THROW(runs_of({0, 10}, {0, 5}, Edge::reflect, "test"), Error);
  EXPECT_THROW(runs_of({-6, 0}, {0, 5}, Edge::fold, "test"), Error);
  EXPECT_THROW(runs_of({0, 1}, {0, 0}, Edge::periodic, "test"), Error);
  EXPECT_TRUE(runs_of({-3, 4}, {0, 0}, Edge::zero, "test").empty());
  EXPECT_THROW(edge_of("mirror", "test"), Error);
}

TEST(SplitSizes, AreThoseOfTensorSplit) {
  EXPECT_EQ(split_sizes(7, 3), (std::vector<int64_t>{3, 2, 2}));
  EXPECT_EQ(split_sizes(2, 4), (std::vector<int64_t>{1, 1, 0, 0}));
  EXPECT_THROW(split_sizes(-1, 2), Error);
}

}  // namespace
}  // namespace halcyon::parallel
