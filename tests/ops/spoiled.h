// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/compare.h"

namespace halcyon::test {

// Tokens on axis 1.
struct AttentionTensors {
  at::Tensor query, key, value, grad_out;
};
struct AttentionResult {
  at::Tensor out, grad_query, grad_key, grad_value;
};

// Numbers that are not finite, at some places, of keys and values, or of queries too.
struct Spoiling {
  double number;
  bool queries;
};
inline constexpr Spoiling kSpoilings[]{{std::numeric_limits<double>::quiet_NaN(), false},
                                       {std::numeric_limits<double>::quiet_NaN(), true},
                                       {std::numeric_limits<double>::infinity(), false},
                                       {-std::numeric_limits<double>::infinity(), true}};

// What no query sees that is looked at changes nothing: with keys and values spoiled at `places`,
// and the gradients of the results that see them, run() gives every other query its bits, or what
// is within `bound` of them, and every key and value that no spoiled query sees. seen (queries,
// keys).
inline void expect_hidden_changes_nothing(
    const std::string& text, const at::Tensor& seen, const std::vector<int64_t>& places,
    const AttentionTensors& in, const std::function<AttentionResult(const AttentionTensors&)>& run,
    double bound = 0) {
  const auto at_places = at::tensor(places, at::kLong);
  const auto clean = run(in);
  for (const auto& spoiling : kSpoilings) {
    SCOPED_TRACE(
        fmt::format("{}: {}{}", text, spoiling.number, spoiling.queries ? " in queries too" : ""));
    const auto filled = [&](const at::Tensor& t, const at::Tensor& index, double number) {
      return t.clone().index_fill_(1, index, number);
    };
    auto spoiled = seen.index_select(1, at_places).any(1);
    if (spoiling.queries) spoiled.index_fill_(0, at_places, true);
    const auto spoiled_queries = spoiled.nonzero().squeeze(1);
    const auto queries = spoiled.logical_not().nonzero().squeeze(1);
    const auto keys =
        seen.index_select(0, spoiled_queries).any(0).logical_not().nonzero().squeeze(1);
    const AttentionTensors dirty{
        spoiling.queries ? filled(in.query, at_places, spoiling.number) : in.query,
        filled(in.key, at_places, spoiling.number), filled(in.value, at_places, spoiling.number),
        filled(in.grad_out, spoiled_queries, std::numeric_limits<double>::quiet_NaN())};
    const auto result = run(dirty);
    const auto same = [&](const at::Tensor& actual, const at::Tensor& expected,
                          const at::Tensor& index) {
      const auto a = actual.index_select(1, index), b = expected.index_select(1, index);
      return bound == 0 ? identical(a, b) : near(a, b, bound);
    };
    EXPECT_TRUE(same(result.out, clean.out, queries)) << "result";
    EXPECT_TRUE(same(result.grad_query, clean.grad_query, queries)) << "gradient of queries";
    EXPECT_TRUE(same(result.grad_key, clean.grad_key, keys)) << "gradient of keys";
    EXPECT_TRUE(same(result.grad_value, clean.grad_value, keys)) << "gradient of values";
    // who sees it is not finite, on every path
    if (std::isnan(spoiling.number)) {
      EXPECT_TRUE(result.out.index_select(1, spoiled_queries).isnan().all().item<bool>());
    }
  }
}

}  // namespace halcyon::test
