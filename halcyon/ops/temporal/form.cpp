// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/temporal/form.h"

namespace halcyon::temporal_detail {
namespace {

// A single block of frames computes what it hides as well. 32 frames, causal, 96 pixels of 8 heads
// of 64, on one core: 5.4 ms by pairs against 9.0 by blocks, backward 15.4 against 16.2.
constexpr int64_t kLongestPairs = kBlock;

}  // namespace

Form best_form(int64_t frames, int64_t head_dim, bool linear, bool causal, int64_t window) {
  if (frames <= kLongestPairs) return Form::pairs;
  if (!linear) return Form::blocks;
  // Multiplications of one head over kBlock * head_dim: a pair of blocks has two products, of
  // kBlock x kBlock scores each; a state takes kBlock x head_dim to enter a block and to apply it.
  const int64_t blocks = (frames + kBlock - 1) / kBlock;
  int64_t by_blocks = 0, by_states = 0;
  for (int64_t i = 0; i < blocks; ++i) {
    const auto s = sight(frames, causal, window, i);
    by_blocks += (s.last - s.first) * 2 * kBlock;
    by_states += (s.last - s.first - (s.full_last - s.full_first)) * 2 * kBlock;
    // behind a window every block enters two sums (cpu_states-inl.h)
    if (s.full_first < s.full_last) by_states += (s.full_first > 0 && causal ? 3 : 2) * head_dim;
  }
  return by_states < by_blocks ? Form::states : Form::blocks;
}

}  // namespace halcyon::temporal_detail
