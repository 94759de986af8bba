// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/unfused_call.h"

namespace halcyon::neighborhood {
namespace {

template <class S, class T>
class Sums {
 public:
  Sums(const at::Tensor& attn, const at::Tensor& y, const std::optional<at::Tensor>& more,
       const std::vector<Axis>& axes, const Kernels<S, T>& kernels)
      : kernels_(kernels),
        plan_(three_axes(axes), Plan::queries, y.size(-1) * static_cast<int64_t>(sizeof(T)),
              packed_bytes(), shares_of(y.size(0) * y.size(1), false)),
        attn_(attn, axes.size()),
        y_(y, axes.size()),
        more_(more),
        out_(result_like<S>(y_.tensor, y.size(-1), axes.size())) {}

  at::Tensor run() {
    const auto& out = out_.tensor;
    each_item<T>(plan_, out.size(0), out.size(1), [&](auto&&... x) { work(x...); });
    return out;
  }

 private:
  void work(int64_t b, int64_t head, const Item& item, Scratch<T>& scratch) const {
    const auto& [kernel, list, mover, exact, slots, slot_mover] = kernels_;
    const auto& axes = plan_.axes();
    const int lanes = kernel.lanes;
    const int64_t d = y_.tokens.channels(), pitch = padded(d, lanes), width = item.source[2].size(),
                  capacity = attn_.tokens.channels();
    T* box = scratch(0, item.rows() * width * pitch);
    copy_box(RowReader<S, T>(mover, axes, item, y_.tokens, b, head), item, box, pitch);
    T* s = scratch(1, kMaxVectors * capacity * lanes);
    T* sums = scratch(2, kMaxVectors * lanes * pitch);
    RowBox<const T> more_box{};
    if (more_.count > 0) more_box = more_.copy(mover, b, head, lanes, scratch, 3);
    std::array<T, kMaxLanes> one;
    one.fill(T(1));
    Tiler tiler(plan_, item, lanes, capacity);
    SlotOrder order(plan_, item, lanes, capacity);
    tiler.each([&](const TileTargets& targets, const std::vector<Tile>& steps) {
      const Tile& tile = order(targets, steps.front());
      each_vector(axes, item, attn_.tokens, targets, lanes, [&](int v, const int64_t* at) {
        slot_mover.read(targets.valid, capacity, attn_.tokens.at(b, head), at,
                        s + v * capacity * lanes, lanes);
      });
      if (tile.lanes.ragged) slots.fill(tile, T(0), s);
      std::fill_n(sums, targets.vectors * lanes * pitch, T(0));
      kernel.weigh(tile, targets.valid, s, {box, width, pitch}, sums);
      if (more_.count > 0)
        kernel.weigh(order.behind(more_.count), targets.valid, s, more_box, sums);
      each_vector(axes, item, out_.tokens, targets, lanes, [&](int v, const int64_t* at) {
        mover.scatter(targets.valid, d, sums + v * lanes * pitch, pitch, one.data(),
                      out_.tokens.at(b, head), at);
      });
    });
  }

  Kernels<S, T> kernels_;
  Plan plan_;
  Operand<S> attn_, y_;
  MoreTokens<S> more_;
  Operand<S> out_;
};

}  // namespace

at::Tensor window_sums(const at::Tensor& attn, const at::Tensor& y,
                       const std::optional<at::Tensor>& more, const std::vector<Axis>& axes,
                       CpuLevel level) {
  const auto type = y.scalar_type();
  return with_kernels(type, level,
                      [&]<class S, class T>(const Kernels<S, T>& kernels) {
                        return Sums<S, T>(attn, y, more, axes, kernels).run();
                      })
      .to(type);
}

}  // namespace halcyon::neighborhood
