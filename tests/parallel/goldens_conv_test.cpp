// SPDX-License-Identifier: Apache-2.0
// Convolutions and interpolation against ../shared/golden/parallel.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "halcyon/parallel/conv.h"
#include "halcyon/parallel/interpolate.h"
#include "tests/parallel/golden_cases.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::parallel {
namespace {

using namespace test;

using Axes = std::vector<int64_t>;

struct Options {
  Axes stride, dilation, output_padding;
  Padding padding = 0;
  int64_t groups = 1;
  std::string mode = "zeros";
  bool is_transposed = false;
};

// What the name of a case does not say follows from its shapes: the least padding with which y has
// its size.
Options options_of(const GoldenCase& one, const at::Tensor& y) {
  const auto &x = one["x"], &weight = one["weight"];
  const auto axes = static_cast<size_t>(weight.dim() - 2);
  Options options;
  options.is_transposed = one.name.starts_with("convT");
  options.groups = options.is_transposed ? y.size(1) / weight.size(1) : x.size(1) / weight.size(1);
  if (one.says("circular") || one.says("periodic")) options.mode = "circular";
  options.dilation = one.per_axis("dil", axes).value_or(Axes(axes, 1));
  options.output_padding = one.per_axis("op", axes).value_or(Axes(axes, 0));
  Axes strides, paddings;
  for (int64_t i = 2; i < x.dim(); ++i) {
    const auto small = options.is_transposed ? x.size(i) : y.size(i),
               large = options.is_transposed ? y.size(i) : x.size(i);
    strides.push_back((large + small / 2) / small);
  }
  options.stride = one.per_axis("s", axes).value_or(strides);
  for (size_t i = 0; i < axes; ++i) {
    const auto axis = static_cast<int64_t>(i) + 2;
    const auto extent = options.dilation[i] * (weight.size(axis) - 1) + 1;
    const auto covered = [&](int64_t windows) {
      return (windows - 1) * options.stride[i] + extent;
    };
    const auto both = options.is_transposed
                          ? covered(x.size(axis)) + options.output_padding[i] - y.size(axis)
                          : covered(y.size(axis)) - x.size(axis);
    paddings.push_back(std::max<int64_t>((both + 1) / 2, 0));
  }
  options.padding = PerAxis(one.per_axis("p", axes).value_or(paddings));
  for (const auto* word : {"same", "valid"}) {
    if (one.says(word)) options.padding = word;
  }
  return options;
}

at::Tensor convolved(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                     const Options& o, const Group& group, const std::optional<std::string>& edge) {
  if (o.is_transposed) {
    return conv_transpose(x, weight, bias, o.stride, std::get<PerAxis>(o.padding), o.output_padding,
                          o.groups, o.dilation, -2, group);
  }
  return conv(x, weight, bias, o.stride, o.padding, o.dilation, o.groups, o.mode, -2, group, edge);
}

// suffix: which of the case's results, as "_zero" with this rule at the poles; gradients only where
// the file has them.
Problem convolution(const GoldenCase& one, const Axes& sizes, const std::string& suffix = "",
                    const std::optional<std::string>& edge = {}) {
  const auto ranks = static_cast<int64_t>(sizes.size());
  const auto work = [=, &one](const Place& place) -> std::vector<at::Tensor> {
    const auto rank = place.all.rank();
    const auto &x = one["x"], &y = one["y" + suffix];
    const auto mine = leaf(part(x, sizes, rank, -2)), weight = leaf(one["weight"]),
               bias = leaf(one["bias"]);
    const auto out = convolved(mine, weight, bias, options_of(one, y), place.all, edge);
    const auto out_sizes = y.size(-2) == x.size(-2) ? sizes : split_sizes(y.size(-2), ranks);
    const auto g = part(one["g"], out_sizes, rank, -2);
    const auto grads = torch::autograd::grad({out}, {mine, weight, bias}, {g});
    return {out.detach(), grads[0], grads[1], grads[2]};
  };
  const auto check = [=, &one](const Parts& parts) {
    EXPECT_TRUE(near(joined(parts, 0, -2), one["y" + suffix], kExact));
    if (!one.has("dx" + suffix)) return;
    EXPECT_TRUE(near(joined(parts, 1, -2), one["dx" + suffix], kExact));
    EXPECT_TRUE(near(summed(parts, 2), one["dweight" + suffix], kExact));
    EXPECT_TRUE(near(summed(parts, 3), one["dbias" + suffix], kExact));
  };
  return {one.name + suffix, 1, ranks, work, check};
}

void add_with_any_cut(std::vector<Problem>& problems, const GoldenCase& one, int64_t of_file) {
  problems.push_back(convolution(one, one.sizes(of_file, -2)));
  for (const auto& sizes : cuts_of(one["x"].size(-2))) {
    problems.push_back(convolution(one, sizes));
  }
}

TEST(ParallelGoldens, ConvolutionsOfCredit) {
  HALCYON_NEEDS_SHARED();
  const auto [ranks, cases] = golden_cases("credit_conv_n2");
  EXPECT_EQ(cases.size(), 26U);
  std::vector<Problem> problems;
  for (const auto& one : cases) add_with_any_cut(problems, one, ranks);
  solve(problems);
}

TEST(ParallelGoldens, ModulesOfCredit) {
  HALCYON_NEEDS_SHARED();
  const auto [ranks, cases] = golden_cases("credit_misc_n2");
  std::vector<Problem> problems;
  int found = 0;
  for (const auto& one : cases) {
    if (one.says("crossembed")) {
      ++found;
      add_with_any_cut(problems, one, ranks);
    }
    if (!one.says("periodic")) continue;
    for (const auto* edge : {"zero", "reflect"}) {
      ++found;
      for (const auto& sizes : cuts_of(one["x"].size(-2))) {
        problems.push_back(convolution(one, sizes, std::string("_") + edge, edge));
      }
    }
  }
  EXPECT_EQ(found, 2 + 4);
  solve(problems);
}

Problem interpolation(const GoldenCase& one, const Axes& sizes) {
  const auto work = [=, &one](const Place& place) -> std::vector<at::Tensor> {
    const auto &x = one["x"], &y = one["y"];
    const auto rows = static_cast<double>(x.size(-2));
    const std::vector<double> scale(2, static_cast<double>(y.size(-2)) / rows);
    const auto mine = leaf(part(x, sizes, place.all.rank(), -2));
    const auto out = interpolate(mine, {}, scale, "bilinear", false, -2, place.all);
    const auto g = part(y, split_sizes(y.size(-2), place.all), place.all.rank(), -2);
    return {out.detach(), torch::autograd::grad({out}, {mine}, {g})[0]};
  };
  const auto check = [&one](const Parts& parts) {
    const auto &x = one["x"], &y = one["y"];
    EXPECT_TRUE(near(joined(parts, 0, -2), y, kExact));
    const auto whole = leaf(x);  // the file has no gradient
    const auto plain = at::upsample_bilinear2d(whole, y.sizes().slice(2), false);
    const auto dx = torch::autograd::grad({plain}, {whole}, {y})[0];
    EXPECT_TRUE(near(joined(parts, 1, -2), dx, kExact));
  };
  return {one.name, 1, static_cast<int64_t>(sizes.size()), work, check};
}

TEST(ParallelGoldens, Interpolations) {
  HALCYON_NEEDS_SHARED();
  int found = 0;
  std::vector<Problem> problems;
  const auto file = golden_cases("credit_misc_n2");
  for (const auto& one : file.cases) {
    if (!one.says("interp")) continue;
    ++found;
    for (const auto& sizes : cuts_of(one["x"].size(-2))) {
      problems.push_back(interpolation(one, sizes));
    }
  }
  EXPECT_EQ(found, 3);
  solve(problems);
}

// The file has only what the peer did with cases of credit_conv_n2; where it was right, rows lie on
// the same ranks.
TEST(ParallelGoldens, ConvolutionsOfPhysicsNeMo) {
  HALCYON_NEEDS_SHARED();
  std::map<std::string, GoldenCase> truth;
  for (auto& one : golden_cases("credit_conv_n2").cases) truth.emplace(one.name, one);
  const auto [ranks, cases] = golden_cases("pnm_ops_n2");
  int right = 0, wrong = 0, refused = 0;
  std::vector<Problem> problems;
  for (const auto& peers : cases) {
    if (!peers.name.starts_with("conv")) continue;
    SCOPED_TRACE(peers.name);
    const auto& one = truth.at(peers.name);
    problems.push_back(convolution(one, one.sizes(ranks, -2)));
    const auto rows = one["y"].size(-2);
    if (peers.peer.contains("peer_raised")) {
      ++refused;
    } else if (peers.peer.at("fwd").is_null()) {
      ++wrong;
      EXPECT_NE(at::cat({peers["peer.y0"], peers["peer.y1"]}, -2).size(-2), rows);
    } else {
      ++right;
      EXPECT_EQ(peers.peer.at("full_rows"), rows);
      const auto same = rows == one["x"].size(-2);
      EXPECT_EQ(peers.peer.at("peer_rows").get<Axes>(),
                same ? one.sizes(ranks, -2) : split_sizes(rows, ranks));
    }
  }
  EXPECT_EQ(right, 16);
  EXPECT_EQ(wrong, 1);
  EXPECT_EQ(refused, 7);
  solve(problems);
}

}  // namespace
}  // namespace halcyon::parallel
