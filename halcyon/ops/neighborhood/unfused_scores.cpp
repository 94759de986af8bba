// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/unfused_call.h"

namespace halcyon::neighborhood {
namespace {

template <class S, class T>
class Scores {
 public:
  Scores(const at::Tensor& x, const at::Tensor& y, const std::optional<at::Tensor>& bias,
         const std::optional<at::Tensor>& more, const std::vector<Axis>& axes, double unused,
         const Kernels<S, T>& kernels)
      : kernels_(kernels),
        plan_(three_axes(axes), Plan::queries, y.size(-1) * static_cast<int64_t>(sizeof(T)),
              packed_bytes(), shares_of(x.size(0) * x.size(1), false)),
        x_(x, axes.size()),
        y_(y, axes.size()),
        more_(more),
        capacity_(window_size(plan_.axes()) + more_.count),
        attn_(result_like<S>(x_.tensor, capacity_, axes.size())),
        unused_(static_cast<T>(unused)) {
    if (bias) bias_ = bias->to(c10::CppTypeToScalarType<T>::value).contiguous();
  }

  at::Tensor run() {
    const auto& attn = attn_.tensor;
    each_item<T>(plan_, attn.size(0), attn.size(1), [&](auto&&... x) { work(x...); });
    return attn;
  }

 private:
  void work(int64_t b, int64_t head, const Item& item, Scratch<T>& scratch) const {
    const auto& [kernel, list, mover, exact, slots, slot_mover] = kernels_;
    const auto& axes = plan_.axes();
    const int lanes = kernel.lanes;
    const int64_t d = x_.tokens.channels(), pitch = pitch_of(item, lanes), capacity = capacity_;
    T* box = scratch(0, item.rows() * d * pitch);
    pack_box(RowReader<S, T>(mover, axes, item, y_.tokens, b, head), item, d, box, pitch);
    T* tile_x = scratch(1, kMaxVectors * d * lanes);
    T* s = scratch(2, kMaxVectors * capacity * lanes);
    PackedBox<T> more_box{};
    if (more_.count > 0) more_box = more_.pack(mover, b, head, lanes, scratch, 3);
    const T* table =
        bias_.defined() ? bias_.template const_data_ptr<T>() + head * bias_.stride(0) : nullptr;
    Tiler tiler(plan_, item, lanes, capacity);
    SlotOrder order(plan_, item, lanes, capacity);
    tiler.each([&](const TileTargets& targets, const std::vector<Tile>& steps) {
      pack_tile(mover, axes, item, x_.tokens, b, head, targets, lanes, T(1), tile_x);
      Tile tile = order(targets, steps.front());
      if (!order.full()) std::fill_n(s, tile.vectors * capacity * lanes, unused_);
      const bool ragged = tile.lanes.ragged;
      tile.lanes.ragged = false;  // the kernel would mask by -infinity
      kernel.scores(tile, tile_x, {box, d, pitch}, table, s);
      if (ragged) slots.fill(tile, unused_, s);
      if (more_.count > 0) kernel.scores(order.behind(more_.count), tile_x, more_box, nullptr, s);
      each_vector(axes, item, attn_.tokens, targets, lanes, [&](int v, const int64_t* at) {
        slot_mover.write(targets.valid, capacity, s + v * capacity * lanes,
                         attn_.tokens.at(b, head), at);
      });
    });
  }

  Kernels<S, T> kernels_;
  Plan plan_;
  Operand<S> x_, y_;
  MoreTokens<S> more_;
  int64_t capacity_;
  Operand<S> attn_;
  at::Tensor bias_;
  T unused_;
};

}  // namespace

at::Tensor window_scores(const at::Tensor& x, const at::Tensor& y,
                         const std::optional<at::Tensor>& bias,
                         const std::optional<at::Tensor>& more, const std::vector<Axis>& axes,
                         double unused, CpuLevel level) {
  const auto type = x.scalar_type();
  return with_kernels(type, level,
                      [&]<class S, class T>(const Kernels<S, T>& kernels) {
                        return Scores<S, T>(x, y, bias, more, axes, unused, kernels).run();
                      })
      .to(type);
}

}  // namespace halcyon::neighborhood
