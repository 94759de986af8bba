// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/table.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "tests/obs/support.h"
#include "tests/support/compare.h"

namespace halcyon::obs {
namespace {

using test::identical;
using test::message_of;
using test::says;

Table small() {
  Table table;
  table.set("x", at::tensor({3.f, NAN, 1.f, 2.f}), "K");
  table.set("n", at::tensor({1, 2, 1, 1}, at::kInt));
  table.set_text("id", {"b", "a", "b", "c"});
  return table;
}

TEST(Table, SelectsByMaskAndIndex) {
  const auto table = small();
  const auto masked = table.select(table["n"] == 1);
  EXPECT_TRUE(identical(masked["x"], at::tensor({3.f, 1.f, 2.f})));
  EXPECT_EQ(masked.text("id", 2), "c");
  EXPECT_EQ(masked.units("x"), "K");
  const auto picked = table.select(at::tensor({2, 2, 0}, at::kLong));
  EXPECT_TRUE(identical(picked["n"], at::tensor({1, 1, 1}, at::kInt)));
  EXPECT_EQ(table.select(at::empty({0}, at::kLong)).rows(), 0);
}

TEST(Table, SortsByKeysStablyWithNanLast) {
  const auto table = small();
  EXPECT_TRUE(identical(table.sorted({"x"})["x"], at::tensor({1.f, 2.f, 3.f, NAN})));
  const auto by_two = table.sorted({"n", "id"});
  EXPECT_TRUE(identical(by_two["x"], at::tensor({3.f, 1.f, 2.f, NAN})));
  EXPECT_EQ(table.sorted({"id"}).text("id", 0), "a");
}

TEST(Table, ConcatenatesAndMergesText) {
  auto a = small();
  Table b;
  b.set("x", at::tensor({9.f}), "K");
  b.set("n", at::tensor({7}, at::kInt));
  b.set_text("id", {"c"});
  a.append(b);
  EXPECT_EQ(a.rows(), 5);
  EXPECT_EQ(a.text("id", 4), "c");
  EXPECT_EQ(a.text("id", 0), "b");
  EXPECT_EQ(a.column("id").names.size(), 3u);
  EXPECT_EQ(Table::concat({}).rows(), 0);
  b.set("x", at::tensor({9.f}), "Pa");
  EXPECT_TRUE(
      says(message_of([&] { a.append(b); }), "expected Float in \"K\", got Float in \"Pa\""));
  b.drop("n");
  EXPECT_TRUE(says(message_of([&] { a.append(b); }), "same columns, got 3 and 2"));
}

TEST(Table, RefusesWhatDoesNotFit) {
  auto table = small();
  EXPECT_TRUE(says(message_of([&] { table.set("y", at::zeros({3})); }), "expected 4 rows"));
  EXPECT_TRUE(says(message_of([&] { table.set("y", at::zeros({4, 1})); }), "rank 1"));
  EXPECT_TRUE(says(message_of([&] { table["y"]; }), "no column y; it has id, n, x"));
  EXPECT_TRUE(says(message_of([&] { table.values<double>("x"); }), "expected Double"));
  EXPECT_TRUE(says(message_of([&] { table.select(at::ones({3}, at::kBool)); }), "mask of 4"));
  EXPECT_TRUE(says(message_of([&] { table.select(at::tensor({4}, at::kLong)); }), "[0, 4)"));
  EXPECT_TRUE(says(message_of([&] { table.select(at::tensor({-1}, at::kLong)); }), "[0, 4)"));
  EXPECT_TRUE(says(message_of([&] {
                     table.set_text("t", at::tensor({0, 1, 0, 2}, at::kInt), {"a", "b"});
                   }),
                   "codes in [0, 2)"));
  EXPECT_TRUE(says(message_of([&] { table.text("x", 0); }), "expected text"));
  EXPECT_TRUE(says(message_of([&] { check_observations(table, "op"); }), "column time_ns"));
}

TEST(Table, StridedColumnsAreCopied) {
  const auto data = at::arange(8, at::kFloat).reshape({4, 2});
  Table table;
  table.set("x", data.select(1, 1));
  EXPECT_TRUE(identical(table["x"], at::tensor({1.f, 3.f, 5.f, 7.f})));
  EXPECT_EQ(table.values<float>("x")[3], 7.f);
}

}  // namespace
}  // namespace halcyon::obs
