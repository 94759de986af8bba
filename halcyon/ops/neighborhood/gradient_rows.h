// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/shares.h"
#include "halcyon/ops/neighborhood/tiled_call.h"

namespace halcyon::neighborhood {

// The sums of one gradient of keys or values over the rows that a share holds. Where a periodic
// axis ends, sources continue as images of the other end's; an image's sum belongs to its original.
template <class S, class T>
class GradientRows {
 public:
  GradientRows(const Mover<S, T>& mover, const Axes& axes, const Share& share,
               const Tokens<S>& tokens, int64_t b, int64_t head, T* sums, int64_t pitch)
      : mover_(mover),
        axes_(axes),
        share_(share),
        where_(axes, share.item, tokens),
        to_(tokens.at(b, head)),
        channels_(tokens.channels()),
        sums_(sums),
        pitch_(pitch),
        folded_(static_cast<std::size_t>(share.item.stored[ring()]),
                std::numeric_limits<int64_t>::min()) {
    const Range owned = share.item.target[2];
    for (int64_t i = owned.begin; i < owned.end; ++i) offset_.push_back(where_(2, i));
    one_.assign(offset_.size(), T(1));
  }

  RowBox<T> box() const { return {sums_, width(), pitch_}; }

  void come(int64_t row) { std::fill_n(at(row), width() * pitch_, T(0)); }

  // Writes the row's sums, if the share owns it.
  void go(int64_t p0, int64_t p1, int64_t row) {
    fold_rows(share_.item.ring == 0 ? p0 : p1);
    if (!share_.owns(p0, p1)) return;
    fold_places(row);
    mover_.scatter(static_cast<int64_t>(offset_.size()), channels_,
                   at(row) + (share_.item.target[2].begin - share_.item.source[2].begin) * pitch_,
                   pitch_, one_.data(), to_ + where_(0, p0) + where_(1, p1), offset_.data());
  }

 private:
  std::size_t ring() const { return static_cast<std::size_t>(share_.item.ring); }
  int64_t width() const { return share_.item.source[2].size(); }
  T* at(int64_t row) const { return sums_ + row * width() * pitch_; }
  static void add(const T* from, int64_t n, T* to) {
    for (int64_t i = 0; i < n; ++i) to[i] += from[i];
  }
  // f(image, original) of an axis that the share owns whole.
  template <class F>
  void each_image(std::size_t a, const F& f) const {
    const Range all = share_.item.source[a];
    const int64_t n = share_.item.size[a];
    if (!axes_[a].periodic || share_.axis == static_cast<int>(a)) return;
    for (int64_t p = all.begin; p < 0; ++p) f(p, p + n);
    for (int64_t p = n; p < all.end; ++p) f(p, p - n);
  }

  // Once for a position on the ring, when its first row goes.
  void fold_rows(int64_t position) {
    auto& folded = folded_[static_cast<std::size_t>(share_.item.place(share_.item.ring, position))];
    if (folded == position) return;
    folded = position;
    const bool planes = share_.item.ring == 0;
    each_image(1 - ring(), [&](int64_t image, int64_t original) {
      const auto row = [&](int64_t p) {
        return at(planes ? share_.item.row(position, p) : share_.item.row(p, position));
      };
      add(row(image), width() * pitch_, row(original));
    });
  }
  void fold_places(int64_t row) {
    const int64_t begin = share_.item.source[2].begin;
    each_image(2, [&](int64_t image, int64_t original) {
      add(at(row) + (image - begin) * pitch_, pitch_, at(row) + (original - begin) * pitch_);
    });
  }

  const Mover<S, T>& mover_;
  const Axes& axes_;
  const Share& share_;
  Offsets where_;
  S* to_;
  int64_t channels_;
  T* sums_;
  int64_t pitch_;
  std::vector<int64_t> offset_, folded_;
  std::vector<T> one_;
};

}  // namespace halcyon::neighborhood
