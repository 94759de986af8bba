// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/window_rows.h"

#include <gtest/gtest.h>

#include <vector>

namespace halcyon::parallel {
namespace {

using neighborhood::Axis;

// Keys of a query as rows of the axis that begins at `first`, not wrapped.
std::vector<int64_t> keys_of(const Axis& axis, int64_t query, int64_t first) {
  const auto local = query - first, residue = local % axis.dilation;
  const auto span = window(axis, local / axis.dilation, group_size(axis, residue));
  std::vector<int64_t> keys;
  for (int64_t i = 0; i < span.count; ++i)
    keys.push_back(first + (span.start + i) * axis.dilation + residue);
  return keys;
}

// The rows taken for an axis of their own give every query the keys that it has on the whole axis.
void check(const Axis& axis, int64_t start, int64_t stop) {
  const auto rows = window_rows(axis, start, stop);
  auto own = axis;
  own.periodic = false;
  own.length = rows.hi - rows.lo;
  if (start == stop) {
    EXPECT_EQ(own.length, 0);
    return;
  }
  EXPECT_LE(rows.lo, start);
  EXPECT_GE(rows.hi, stop);
  EXPECT_GE(own.length, axis.kernel * axis.dilation);
  if (!axis.periodic) {
    EXPECT_GE(rows.lo, 0);
    EXPECT_LE(rows.hi, axis.length);
  }
  for (auto query = start; query < stop; ++query) {
    EXPECT_EQ(keys_of(own, query, rows.lo), keys_of(axis, query, 0))
        << "query " << query << " of [" << start << ", " << stop << ") on " << axis.length
        << ", kernel " << axis.kernel << ", dilation " << axis.dilation << ", stride "
        << axis.stride << (axis.causal ? ", causal" : "") << (axis.periodic ? ", periodic" : "");
  }
}

template <class F>
void each_part(int64_t length, const F& f) {
  for (int64_t start = 0; start <= length; ++start) {
    for (auto stop = start; stop <= length; ++stop) f(start, stop);
  }
}

TEST(WindowRows, GiveEveryQueryItsWindow) {
  for (int64_t length = 1; length <= 15; ++length) {
    for (int64_t kernel = 1; kernel <= length; ++kernel) {
      for (int64_t dilation = 1; kernel * dilation <= length; ++dilation) {
        for (int64_t stride = 1; stride <= kernel; ++stride) {
          for (const bool causal : {false, true}) {
            each_part(length, [&](int64_t start, int64_t stop) {
              check({length, kernel, dilation, stride, causal, false}, start, stop);
            });
          }
        }
        if (length % dilation == 0) {
          each_part(length, [&](int64_t start, int64_t stop) {
            check({length, kernel, dilation, 1, false, true}, start, stop);
          });
        }
        if (HasFailure()) return;
      }
    }
  }
}

TEST(WindowRows, ReachNoFurtherThanTheWindows) {
  const Axis axis{100, 7, 1, 1, false, false};
  EXPECT_EQ(window_rows(axis, 40, 50).lo, 37);
  EXPECT_EQ(window_rows(axis, 40, 50).hi, 53);
  EXPECT_EQ(window_rows(axis, 99, 100).lo, 93);
  EXPECT_EQ(window_rows(axis, 0, 1).hi, 7);
  const auto causal = window_rows({100, 7, 1, 1, true, false}, 40, 50);
  EXPECT_EQ(causal.lo, 34);
  EXPECT_EQ(causal.hi, 50);
}

}  // namespace
}  // namespace halcyon::parallel
