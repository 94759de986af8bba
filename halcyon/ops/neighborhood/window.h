// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

// Where the windows of neighborhood attention lie (NATTEN; arXiv:2204.07143, 2504.16922), axis by
// axis: the neighbourhood of a token is the product of its windows.
namespace halcyon::neighborhood {

inline constexpr int kMaxAxes = 3;

struct Axis {
  int64_t length = 1, kernel = 1, dilation = 1, stride = 1;
  bool causal = false, periodic = false;
};

// Consecutive positions of a dilation group: start, ..., start + count - 1. On a periodic axis they
// are unwrapped: start may be negative, and the end beyond the group.
struct Span {
  int64_t start, count;
};

// Tokens r, r + D, r + 2 D, ... of an axis form its dilation group r, and see only each other.
inline int64_t group_size(const Axis& axis, int64_t residue) {
  return (axis.length - residue + axis.dilation - 1) / axis.dilation;
}

// The keys that the query at position g of a group of n tokens sees.
Span window(const Axis& axis, int64_t g, int64_t n);

// A band: of every target of a group its sources, which are a span whose start never decreases.
using Band = std::vector<Span>;

// window() of each query of a group of n tokens.
Band query_band(const Axis& axis, int64_t n);

// The same pairs seen from the keys: of each key the queries that see it (on a periodic axis,
// unwrapped). The count may be 0: a strided window skips keys.
Band key_band(const Axis& axis, int64_t n);

}  // namespace halcyon::neighborhood
