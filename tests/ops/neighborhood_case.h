// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <random>
#include <string>

#include "halcyon/ops/neighborhood/backends.h"

namespace halcyon::test {

// A random problem of fused neighborhood attention, in double.
struct NeighborhoodCase {
  neighborhood::Inputs in;
  at::Tensor grad_out, grad_lse;
  std::string text;
};

struct NeighborhoodLimits {
  std::vector<int64_t> longest;  // per axis; their number is the rank
  bool any_feature = true;       // dilation, stride, causal, periodic, bias, shared heads
  int64_t widest = 1 << 20;      // kernel
};

// Memory layout: contiguous, or views that are not.
inline at::Tensor in_some_layout(std::mt19937& random, const at::Tensor& t) {
  switch (random() % 4) {
    case 0:
      return at::cat({t, t}, -1).slice(-1, 0, t.size(-1));
    case 1:
      return t.transpose(0, -1).contiguous().transpose(0, -1);
    case 2:
      return t.transpose(1, -2).contiguous().transpose(1, -2);
    default:
      return t;
  }
}

inline NeighborhoodCase random_case(uint32_t seed, const NeighborhoodLimits& limits) {
  std::mt19937 random(seed);
  const auto draw = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  const auto some = [&](int64_t one_in) { return limits.any_feature && draw(1, one_in) == 1; };
  NeighborhoodCase c;
  std::vector<int64_t> shape{draw(1, 2)}, table;
  bool causal = false;
  for (const int64_t longest : limits.longest) {
    neighborhood::Axis axis;
    axis.length = draw(1, longest);
    axis.dilation = some(2) ? draw(1, std::min<int64_t>(axis.length, 5)) : 1;
    axis.kernel = draw(1, std::min(limits.widest, axis.length / axis.dilation));
    if (some(3) && axis.length % axis.dilation == 0) {
      axis.periodic = true;
    } else {
      axis.causal = some(4);
      axis.stride = some(2) ? draw(1, axis.kernel) : 1;
    }
    causal = causal || axis.causal;
    c.text +=
        fmt::format("[L {} K {} D {} S {}{}{}]", axis.length, axis.kernel, axis.dilation,
                    axis.stride, axis.causal ? " causal" : "", axis.periodic ? " periodic" : "");
    shape.push_back(axis.length);
    table.push_back(2 * axis.kernel - 1);
    c.in.axes.push_back(axis);
  }
  const int64_t groups = draw(1, 2), heads = groups * (some(2) ? draw(1, 3) : 1);
  const int64_t d = draw(1, 2) == 1 ? 16 * draw(1, 3) : draw(1, 37), e = some(2) ? draw(1, 40) : d;
  const auto generator = at::detail::createCPUGenerator(seed);
  const auto normal = [&](std::vector<int64_t> sizes) {
    return at::randn(sizes, generator, at::TensorOptions(at::kDouble));
  };
  const auto tokens = [&](int64_t h, int64_t channels) {
    auto sizes = shape;
    sizes.insert(sizes.end(), {h, channels});
    return in_some_layout(random, normal(sizes));
  };
  c.in.query = tokens(heads, d);
  c.in.key = tokens(groups, d);
  c.in.value = tokens(groups, e);
  c.in.scale = 1 / std::sqrt(static_cast<double>(d));
  if (!causal && some(2)) {
    table.insert(table.begin(), heads);
    c.in.bias = normal(table);
  }
  c.grad_out = tokens(heads, e);
  shape.push_back(heads);
  c.grad_lse = normal(shape);
  c.text += fmt::format(" B {} H {}/{} d {} e {}{} seed {}", shape[0], heads, groups, d, e,
                        c.in.bias ? " bias" : "", seed);
  return c;
}

}  // namespace halcyon::test
