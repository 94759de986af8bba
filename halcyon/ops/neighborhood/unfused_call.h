// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "halcyon/ops/neighborhood/slot_order.h"
#include "halcyon/ops/neighborhood/tiled_call.h"
#include "halcyon/ops/neighborhood/unfused_backends.h"

// What the passes of the unfused operators share.
namespace halcyon::neighborhood {

// A tensor (B, H, *, c), kept in the storage type, and its tokens.
template <class S>
struct Operand {
  Operand() = default;
  Operand(const at::Tensor& t, std::size_t axes)
      : tensor(readable<S>(t)), tokens(tensor.movedim(1, -2), axes) {}
  at::Tensor tensor;
  Tokens<S> tokens;
};

// An empty result (B, H, *, channels).
template <class S>
Operand<S> result_like(const at::Tensor& t, int64_t channels, std::size_t axes) {
  auto shape = t.sizes().vec();
  shape.back() = channels;
  return {at::empty(shape, t.options()), axes};
}

// All sources of an item at once, row by row: transposed, or as they are.
template <class S, class T>
void pack_box(const RowReader<S, T>& rows, const Item& item, int64_t depth, T* to, int64_t pitch) {
  for (int64_t p0 = item.source[0].begin; p0 < item.source[0].end; ++p0) {
    for (int64_t p1 = item.source[1].begin; p1 < item.source[1].end; ++p1, to += depth * pitch)
      rows.pack(p0, p1, to, pitch);
  }
}
template <class S, class T>
void copy_box(const RowReader<S, T>& rows, const Item& item, T* to, int64_t pitch) {
  const int64_t width = item.source[2].size();
  for (int64_t p0 = item.source[0].begin; p0 < item.source[0].end; ++p0) {
    for (int64_t p1 = item.source[1].begin; p1 < item.source[1].end; ++p1, to += width * pitch)
      rows.copy(p0, p1, to, pitch);
  }
}

// f(batch, head, item, scratch) for every item of every head.
template <class T, class F>
void each_item(const Plan& plan, int64_t batch, int64_t heads, const F& f) {
  const auto items = static_cast<int64_t>(plan.items().size());
  at::parallel_for(0, batch * heads * items, 1, [&](int64_t first, int64_t last) {
    Scratch<T> scratch;
    for (int64_t i = first; i < last; ++i)
      f(i / items / heads, i / items % heads, plan.items()[static_cast<std::size_t>(i % items)],
        scratch);
  });
}

// The additional tokens (B, H, N, c) of one head as a box of one row.
template <class S>
struct MoreTokens {
  explicit MoreTokens(const std::optional<at::Tensor>& t) {
    if (t && t->size(2) > 0) operand = {*t, 1};
    if (operand.tensor.defined()) count = operand.tensor.size(2);
  }
  // Transposed, for scores; every lane reads a whole vector at its one place.
  template <class T>
  PackedBox<T> pack(const Mover<S, T>& mover, int64_t b, int64_t head, int lanes,
                    Scratch<T>& scratch, std::size_t buffer) const {
    const auto& tokens = operand.tokens;
    const int64_t pitch = padded(count + lanes - 1, lanes);
    T* to = scratch(buffer, tokens.channels() * pitch);
    mover.pack(count, tokens.channels(), tokens.at(b, head), offsets().data(), T(1), to, pitch);
    return {to, tokens.channels(), pitch};
  }
  // As they are, for sums.
  template <class T>
  RowBox<const T> copy(const Mover<S, T>& mover, int64_t b, int64_t head, int lanes,
                       Scratch<T>& scratch, std::size_t buffer) const {
    const auto& tokens = operand.tokens;
    const int64_t pitch = padded(tokens.channels(), lanes);
    T* to = scratch(buffer, count * pitch);
    mover.gather(count, tokens.channels(), tokens.at(b, head), offsets().data(), T(1), to, pitch);
    return {to, count, pitch};
  }
  std::vector<int64_t> offsets() const {
    std::vector<int64_t> offset(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < offset.size(); ++i)
      offset[i] = static_cast<int64_t>(i) * operand.tokens.step(kMaxAxes - 1);
    return offset;
  }

  Operand<S> operand;
  int64_t count = 0;
};

}  // namespace halcyon::neighborhood
