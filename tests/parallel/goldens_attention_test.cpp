// SPDX-License-Identifier: Apache-2.0
// Norms and attention against ../shared/golden/parallel.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "halcyon/parallel/attention.h"
#include "halcyon/parallel/neighborhood.h"
#include "halcyon/parallel/norms.h"
#include "tests/parallel/golden_cases.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::parallel {
namespace {

using namespace test;

using Tensors = std::vector<at::Tensor>;

Problem norm(const GoldenCase& one, const std::vector<int64_t>& sizes) {
  const bool affine = one.says("affine");
  EXPECT_NE(affine, one.says("noaffine"));
  const auto work = [=, &one](const Place& place) {
    const auto rank = place.all.rank();
    const auto x = leaf(part(one["x"], sizes, rank, -2));
    Tensors inputs{x};
    std::optional<at::Tensor> weight, bias;
    if (affine) {
      weight = leaf(one["weight"]);
      bias = leaf(one["bias"]);
      inputs.insert(inputs.end(), {*weight, *bias});
    }
    const auto y = group_norm(x, one.number("g").value(), weight, bias, 1e-5, -2, place.all);
    auto results = torch::autograd::grad({y}, inputs, {part(one["g"], sizes, rank, -2)});
    results.insert(results.begin(), y.detach());
    return results;
  };
  const auto check = [=, &one](const Parts& parts) {
    EXPECT_TRUE(near(joined(parts, 0, -2), one["y"], kExact));
    EXPECT_TRUE(near(joined(parts, 1, -2), one["dx"], kExact));
    if (!affine) return;
    EXPECT_TRUE(near(summed(parts, 2), one["dweight"], kExact));
    EXPECT_TRUE(near(summed(parts, 3), one["dbias"], kExact));
  };
  return {one.name, 1, static_cast<int64_t>(sizes.size()), work, check};
}

TEST(ParallelGoldens, GroupNormsOfCredit) {
  HALCYON_NEEDS_SHARED();
  for (const auto* file : {"credit_norm_n2", "credit_norm_n3"}) {
    const auto [ranks, cases] = golden_cases(file);
    EXPECT_EQ(cases.size(), 4U);
    std::vector<Problem> problems;
    for (const auto& one : cases) {
      problems.push_back(norm(one, one.sizes(ranks, -2)));
      for (const auto& sizes : cuts_of(one["x"].size(-2))) problems.push_back(norm(one, sizes));
    }
    solve(problems);
  }
}

// What the peer did with cases of credit_norm_n2.
TEST(ParallelGoldens, GroupNormsOfPhysicsNeMo) {
  HALCYON_NEEDS_SHARED();
  std::map<std::string, GoldenCase> truth;
  for (auto& one : golden_cases("credit_norm_n2").cases) truth.emplace(one.name, one);
  const auto [ranks, cases] = golden_cases("pnm_ops_n2");
  std::vector<Problem> problems;
  for (const auto& peers : cases) {
    if (!peers.name.starts_with("gn")) continue;
    SCOPED_TRACE(peers.name);
    const auto& one = truth.at(peers.name);
    EXPECT_EQ(peers.peer.at("peer_rows").get<std::vector<int64_t>>(), one.sizes(ranks, -2));
    problems.push_back(norm(one, one.sizes(ranks, -2)));
  }
  EXPECT_EQ(problems.size(), 4U);
  solve(problems);
}

using Attention = std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const Group& group)>;

Problem attended(const GoldenCase& one, int64_t dim, const std::vector<int64_t>& sizes,
                 const Attention& attention) {
  const auto work = [=, &one](const Place& place) {
    const auto mine = [&](const char* name) {
      return part(one[name], sizes, place.all.rank(), dim);
    };
    const auto q = leaf(mine("q")), k = leaf(mine("k")), v = leaf(mine("v"));
    const auto y = attention(q, k, v, place.all);
    auto results = torch::autograd::grad({y}, {q, k, v}, {mine("g")});
    results.insert(results.begin(), y.detach());
    return results;
  };
  const auto check = [=, &one](const Parts& parts) {
    size_t i = 0;
    for (const auto* name : {"y", "dq", "dk", "dv"}) {
      EXPECT_TRUE(near(joined(parts, i++, dim), one[name], kExact)) << name;
    }
  };
  return {one.name + ", axis " + std::to_string(dim), 1, static_cast<int64_t>(sizes.size()), work,
          check};
}

TEST(ParallelGoldens, Attention) {
  HALCYON_NEEDS_SHARED();
  const auto cases = golden_cases("ref_attention").cases;
  EXPECT_EQ(cases.size(), 6U);
  std::vector<Problem> problems;
  for (const auto& one : cases) {
    const bool ring = one.says("ring");
    NeighborhoodOptions options;
    if (!ring) {
      one.peer.at("kernel").get_to(options.kernel_size);
      one.peer.at("dilation").get_to(options.dilation);
      one.peer.at("causal").get_to(options.is_causal);
    }
    for (const int64_t dim : ring ? std::vector<int64_t>{2} : std::vector<int64_t>{1, 2}) {
      const auto attention = [=](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const Group& group) {
        return ring ? scaled_dot_product_attention(q, k, v, false, {}, dim, group)
                    : na2d(q, k, v, options, dim, group).out;
      };
      for (const auto& sizes : cuts_of(one["q"].size(dim))) {
        problems.push_back(attended(one, dim, sizes, attention));
      }
    }
  }
  solve(problems);
}

}  // namespace
}  // namespace halcyon::parallel
