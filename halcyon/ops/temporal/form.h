// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// How a CPU computes it, whatever the types and the instruction set. All give the same sums but for
// their rounding.
namespace halcyon::temporal_detail {

enum class Form {
  pairs,   // short T: the scores of a pixel's visible pairs of frames, all of them at once
  blocks,  // products of blocks of frames; the softmax online, so that T x T is never held
  states,  // blocks, with a d x d state in the place of those that are seen entirely: linear only
};

inline constexpr int64_t kBlock = 32;  // frames

// Blocks of frames that block I of queries sees: [first, last), of which [full_first, full_last)
// entirely. Where there is none of those both are `last`.
struct Sight {
  int64_t first, last, full_first, full_last;
};
inline Sight sight(int64_t frames, bool causal, int64_t window, int64_t block) {
  const int64_t blocks = (frames + kBlock - 1) / kBlock;
  if (!causal) return {0, blocks, 0, blocks};
  const int64_t begin = block * kBlock, next = begin + kBlock;
  const int64_t end = next < frames ? next : frames;
  const int64_t oldest = begin < window ? 0 : begin - window + 1;  // that its first frame sees
  const int64_t common = end <= window ? 0 : end - window;         // and its last one
  const int64_t full = (common + kBlock - 1) / kBlock;
  const Sight s{oldest / kBlock, block + 1, full, block};
  return s.full_first < s.full_last ? s : Sight{s.first, s.last, s.last, s.last};
}

// The one with the fewest multiplications, but for short T.
Form best_form(int64_t frames, int64_t head_dim, bool linear, bool causal, int64_t window);

}  // namespace halcyon::temporal_detail
