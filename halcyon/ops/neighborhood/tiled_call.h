// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "halcyon/ops/neighborhood/backends.h"
#include "halcyon/ops/neighborhood/kernels.h"
#include "halcyon/ops/neighborhood/plan.h"
#include "halcyon/ops/tuning/switches.h"

// What the forward and the backward over tiles share: tensors as six-dimensional arrays of S,
// scratch, and the packing of boxes. T is what is computed in.
namespace halcyon::neighborhood {

// Scores of a query at a time. The backward has two of each, which it goes over five times: windows
// of more than 100 keys take it 10 to 40 % longer where they leave the first-level cache.
inline constexpr int64_t kMaxSlots = 1024, kMaxBackwardSlots = 64;

// Into how many shares each of so many heads is cut at least, for the threads. A bias gradient is
// summed over shares, so there their number is fixed, as the result shall not depend on the
// threads.
inline int64_t shares_of(int64_t heads, bool fixed) {
  const int64_t wanted = fixed ? 16 : 4 * at::get_num_threads();
  return wanted / std::max<int64_t>(heads, 1);
}

// (B, L0, L1, L2, H, c) with contiguous channels.
template <class S>
class Tokens {
 public:
  Tokens() = default;
  Tokens(const at::Tensor& t, std::size_t axes) {
    data_ = static_cast<S*>(const_cast<void*>(t.const_data_ptr()));
    channels_ = t.size(-1);
    batch_ = t.stride(0);
    head_ = t.stride(-2);
    for (std::size_t a = 0; a < kMaxAxes; ++a) {
      const auto missing = kMaxAxes - axes;
      step_[a] = a < missing ? 0 : t.stride(static_cast<int64_t>(a - missing + 1));
    }
  }
  S* at(int64_t b, int64_t head) const { return data_ + b * batch_ + head * head_; }
  int64_t step(std::size_t axis) const { return step_[axis]; }
  int64_t channels() const { return channels_; }

 private:
  S* data_ = nullptr;
  int64_t channels_ = 0, batch_ = 0, head_ = 0;
  std::array<int64_t, kMaxAxes> step_{};
};

// Where the tokens of an item lie, in elements of one tensor.
class Offsets {
 public:
  template <class S>
  Offsets(const Axes& axes, const Item& item, const Tokens<S>& tokens) {
    for (std::size_t a = 0; a < kMaxAxes; ++a) {
      residue_[a] = item.residue[a];
      size_[a] = item.size[a];
      stride_[a] = axes[a].dilation;
      step_[a] = tokens.step(a);
    }
  }
  // Of a position of the group on one axis, wrapped.
  int64_t operator()(std::size_t axis, int64_t position) const {
    const int64_t n = size_[axis];
    int64_t p = position;
    if (p < 0 || p >= n) p = (p % n + n) % n;
    return (residue_[axis] + stride_[axis] * p) * step_[axis];
  }

 private:
  std::array<int64_t, kMaxAxes> residue_{}, size_{}, stride_{}, step_{};
};

// Elements of a packed row: what the blocks of the item read, in whole vectors, and an odd number
// of them, lest the channels of one place share cache sets. A lane with few sources is read on, as
// far as the block's longest.
inline int64_t pitch_of(const Item& item, int lanes) {
  int64_t width = item.source[2].size();
  for (int64_t first = item.target[2].begin; first < item.target[2].end; first += lanes) {
    const int64_t end = std::min(first + lanes, item.target[2].end);
    int64_t shifts = 0;
    for (int64_t t = first; t < end; ++t) shifts = std::max(shifts, item.span(2, t).count);
    const int64_t begin = item.span(2, first).start, last = item.span(2, end - 1).start;
    width = std::max(width, std::max(last + 1, begin + lanes) + shifts - item.source[2].begin);
  }
  return ((width + lanes - 1) / lanes | 1) * lanes;
}

// Reads rows of sources one by one, as HeldRows asks for them.
template <class S, class T>
class RowReader {
 public:
  RowReader(const Mover<S, T>& mover, const Axes& axes, const Item& item, const Tokens<S>& tokens,
            int64_t b, int64_t head)
      : mover_(mover), where_(axes, item, tokens), channels_(tokens.channels()) {
    from_ = tokens.at(b, head);
    offset_.reserve(static_cast<std::size_t>(item.source[2].size()));
    for (int64_t i = item.source[2].begin; i < item.source[2].end; ++i)
      offset_.push_back(where_(2, i));
  }
  // Transposed: (channels, pitch).
  void pack(int64_t p0, int64_t p1, T* to, int64_t pitch) const {
    mover_.pack(count(), channels_, from(p0, p1), offset_.data(), T(1), to, pitch);
  }
  // As they are: (places, pitch).
  void copy(int64_t p0, int64_t p1, T* to, int64_t pitch) const {
    mover_.gather(count(), channels_, from(p0, p1), offset_.data(), T(1), to, pitch);
  }

 private:
  int64_t count() const { return static_cast<int64_t>(offset_.size()); }
  const S* from(int64_t p0, int64_t p1) const { return from_ + where_(0, p0) + where_(1, p1); }

  const Mover<S, T>& mover_;
  Offsets where_;
  int64_t channels_;
  const S* from_;
  std::vector<int64_t> offset_;
};

// For each vector of the tile: f(vector, token offsets of its valid lanes).
template <class S, class F>
void each_vector(const Axes& axes, const Item& item, const Tokens<S>& tokens,
                 const TileTargets& targets, int lanes, const F& f) {
  const Offsets where(axes, item, tokens);
  std::array<int64_t, kMaxLanes> offset;
  for (int v = 0; v < targets.vectors; ++v) {
    const int64_t i1 = targets.first[1] + (targets.stacked ? v : 0);
    const int64_t i2 = targets.first[2] + (targets.stacked ? 0 : v * lanes);
    const int64_t row = where(0, targets.first[0]) + where(1, i1);
    for (int64_t l = 0; l < targets.valid; ++l)
      offset[static_cast<std::size_t>(l)] = row + where(2, i2 + l);
    f(v, offset.data());
  }
}

// The tile's targets as (vectors, channels, lanes), times scale.
template <class S, class T>
void pack_tile(const Mover<S, T>& mover, const Axes& axes, const Item& item,
               const Tokens<S>& tokens, int64_t b, int64_t head, const TileTargets& targets,
               int lanes, T scale, T* to) {
  each_vector(axes, item, tokens, targets, lanes, [&](int v, const int64_t* offset) {
    mover.pack(targets.valid, tokens.channels(), tokens.at(b, head), offset, scale,
               to + v * tokens.channels() * lanes, lanes);
  });
}

// The most sources of a target of the item.
inline int64_t most_scores(const Item& item) {
  int64_t most = 1;
  for (std::size_t a = 0; a < kMaxAxes; ++a) {
    int64_t count = 0;
    for (int64_t t = item.target[a].begin; t < item.target[a].end; ++t)
      count = std::max(count, item.span(a, t).count);
    most *= count;
  }
  return most;
}

inline int64_t capacity_of(const Item& item, int64_t most = kMaxSlots, const Tiling& tiling = {}) {
  return std::clamp<int64_t>(most_scores(item), 1, tiling.slots > 0 ? tiling.slots : most);
}
inline int64_t bytes_of(const Tiling& tiling) {
  return tiling.bytes > 0 ? tiling.bytes : packed_bytes();
}

}  // namespace halcyon::neighborhood
