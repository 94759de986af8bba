// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>

#include <array>

#include "halcyon/ops/finite.h"
#include "halcyon/ops/neighborhood/kernels.h"
#include "halcyon/ops/neighborhood/sphere/sphere_attention.h"

// What the forward and the backward over pixel lists share.
namespace halcyon::neighborhood {

static_assert(kListLanes == kBlock);
inline constexpr int64_t kMaxSources = 512;  // gathered at a time

// (B, X, H, c) with contiguous channels.
template <class S>
struct Pixels {
  Pixels() = default;
  explicit Pixels(const at::Tensor& t)
      : data(static_cast<S*>(const_cast<void*>(t.const_data_ptr()))),
        channels(t.size(3)),
        batch(t.stride(0)),
        pixel(t.stride(1)),
        head(t.stride(2)) {}
  S* at(int64_t b, int64_t h) const { return data + b * batch + h * head; }

  S* data = nullptr;
  int64_t channels = 0, batch = 0, pixel = 0, head = 0;
};

// The pixels of a block, and what it sees, piece by piece.
class BlockList {
 public:
  BlockList(const PixelLists& lists, int64_t block) : lists_(lists), block_(block) {
    const auto left = static_cast<int64_t>(lists.token.size()) - block * kBlock;
    size_ = std::min<int64_t>(left, kBlock);
  }
  int64_t size() const { return size_; }

  template <class S>
  std::array<int64_t, kBlock> offsets(const Pixels<S>& pixels) const {
    std::array<int64_t, kBlock> offset{};
    for (int64_t l = 0; l < size_; ++l)
      offset[static_cast<std::size_t>(l)] =
          lists_.token[static_cast<std::size_t>(block_ * kBlock + l)] * pixels.pixel;
    return offset;
  }

  // f(tokens, bits, how many)
  template <class F>
  void each_piece(const F& f) const {
    const auto end = lists_.first[static_cast<std::size_t>(block_ + 1)];
    for (int64_t i = lists_.first[static_cast<std::size_t>(block_)]; i < end; i += kMaxSources)
      f(lists_.seen.data() + i, lists_.seen_by.data() + i, std::min(kMaxSources, end - i));
  }

 private:
  const PixelLists& lists_;
  int64_t block_, size_;
};

// out += s^T . rows, of rows that are all finite or may not be.
template <class T>
void weigh_rows(const ListKernel<T>& kernel, bool finite, int64_t n, int64_t pitch, const T* s,
                const T* rows, const uint16_t* seen_by, T* out, Scratch<T>& scratch) {
  constexpr std::size_t kClean = 15;  // a buffer that nobody else has
  if (finite) return kernel.weigh(n, pitch, s, rows, out);
  kernel.weigh_seen(n, pitch, s, rows, seen_by, out, scratch(kClean, kMaxSources * pitch));
}

// Rows (n, pitch) of the named pixels.
template <class S, class T>
void gather_rows(const Mover<S, T>& mover, const Pixels<S>& pixels, int64_t b, int64_t head,
                 const int32_t* token, int64_t n, T scale, T* to, int64_t pitch) {
  std::array<int64_t, kMaxSources> offset;
  for (int64_t i = 0; i < n; ++i) offset[static_cast<std::size_t>(i)] = token[i] * pixels.pixel;
  mover.gather(n, pixels.channels, pixels.at(b, head), offset.data(), scale, to, pitch);
}

// A block's pixels as (channels, kBlock), times scale; missing ones are 0.
template <class S, class T>
void pack_block(const Mover<S, T>& mover, const Pixels<S>& pixels, int64_t b, int64_t head,
                const BlockList& list, T scale, T* to) {
  const auto offset = list.offsets(pixels);
  mover.pack(list.size(), pixels.channels, pixels.at(b, head), offset.data(), scale, to, kBlock);
}

// The other way, from rows (kBlock, pitch), each times its factor.
template <class S, class T>
void write_block(const Mover<S, T>& mover, const Pixels<S>& pixels, int64_t b, int64_t head,
                 const BlockList& list, const T* from, int64_t pitch, const T* factor) {
  const auto offset = list.offsets(pixels);
  mover.scatter(list.size(), pixels.channels, from, pitch, factor, pixels.at(b, head),
                offset.data());
}

}  // namespace halcyon::neighborhood
