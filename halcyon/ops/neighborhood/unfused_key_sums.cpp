// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/grad_mode.h>

#include "halcyon/ops/neighborhood/unfused_call.h"

namespace halcyon::neighborhood {
namespace {

// Where the windows of an item's queries begin, as SlotBox asks for it.
class WindowStarts {
 public:
  WindowStarts(const Axes& axes, const Item& item, int64_t pitch) : axes_(axes), pitch_(pitch) {
    const auto start = [&](std::size_t a, int64_t query) {
      return window(axes[a], query, item.size[a]).start;
    };
    const int64_t slots = window_size(axes);
    int64_t row = 0;
    for (int64_t q0 = item.source[0].begin; q0 < item.source[0].end; ++q0) {
      for (int64_t q1 = item.source[1].begin; q1 < item.source[1].end; ++q1, ++row)
        rows_.push_back(row * slots * pitch - at(start(0, q0), start(1, q1), 0));
    }
    for (int64_t q2 = item.source[2].begin; q2 < item.source[2].end; ++q2)
      first_.push_back(static_cast<int32_t>(start(2, q2)));
    steady_.assign(first_.size(), 1);
    for (std::size_t i = first_.size(); i-- > 1;)
      steady_[i - 1] = first_[i] == first_[i - 1] + 1 ? steady_[i] + 1 : 1;
  }

  template <class T>
  SlotBox<T> box(const T* data, const TileTargets& targets, int lanes) const {
    SlotBox<T> box{data, pitch_, rows_.data(), {}, first_.data(), steady_.data(), targets.valid};
    const auto& first = targets.first;
    for (int v = 0; v < targets.vectors; ++v)
      box.vector[v] = targets.stacked ? at(first[0], first[1] + v, first[2])
                                      : at(first[0], first[1], first[2] + v * lanes);
    return box;
  }

 private:
  int64_t at(int64_t p0, int64_t p1, int64_t p2) const {
    return ((p0 * axes_[1].kernel + p1) * axes_[2].kernel + p2) * pitch_;
  }

  const Axes& axes_;
  int64_t pitch_;
  std::vector<int64_t> rows_;
  std::vector<int32_t> first_, steady_;
};

template <class S, class T>
class OfKeys {
 public:
  OfKeys(const at::Tensor& attn, const at::Tensor& x, const std::vector<Axis>& axes,
         const Kernels<S, T>& kernels)
      : kernels_(kernels),
        window_(window_size(three_axes(axes))),
        plan_(three_axes(axes), Plan::keys,
              (x.size(-1) + window_) * static_cast<int64_t>(sizeof(T)), packed_bytes(),
              shares_of(x.size(0) * x.size(1), false)),
        attn_(attn, axes.size()),
        x_(x, axes.size()),
        out_(result_like<S>(x_.tensor, x.size(-1), axes.size())) {}

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
    const int64_t d = x_.tokens.channels(), pitch = pitch_of(item, lanes),
                  capacity = capacity_of(item), width = item.source[2].size(),
                  channels = padded(d, lanes);
    T* box_x = scratch(0, item.rows() * width * channels);
    T* box_attn = scratch(1, item.rows() * window_ * pitch);
    copy_box(RowReader<S, T>(mover, axes, item, x_.tokens, b, head), item, box_x, channels);
    transpose(item, b, head, box_attn, pitch);
    T* s = scratch(2, kMaxVectors * capacity * lanes);
    T* sums = scratch(3, kMaxVectors * lanes * channels);
    std::array<T, kMaxLanes> one;
    one.fill(T(1));
    const WindowStarts starts(axes, item, pitch);
    Tiler tiler(plan_, item, lanes, capacity);
    tiler.each([&](const TileTargets& targets, const std::vector<Tile>& steps) {
      const auto from = starts.box<T>(box_attn, targets, lanes);
      std::fill_n(sums, targets.vectors * lanes * channels, T(0));
      for (const Tile& tile : steps) {
        slots.of_keys(tile, from, s);
        kernel.weigh(tile, targets.valid, s, {box_x, width, channels}, sums);
      }
      each_vector(axes, item, out_.tokens, targets, lanes, [&](int v, const int64_t* at) {
        mover.scatter(targets.valid, d, sums + v * lanes * channels, channels, one.data(),
                      out_.tokens.at(b, head), at);
      });
    });
  }

  // The rows of the item's queries as (row, slot, place).
  void transpose(const Item& item, int64_t b, int64_t head, T* to, int64_t pitch) const {
    const Offsets where(plan_.axes(), item, attn_.tokens);
    const int64_t lanes = kernels_.kernel.lanes, n = item.source[2].size();
    std::vector<int64_t> offset(static_cast<std::size_t>(n));
    for (int64_t i = 0; i < n; ++i)
      offset[static_cast<std::size_t>(i)] = where(2, item.source[2].begin + i);
    for (int64_t p0 = item.source[0].begin; p0 < item.source[0].end; ++p0) {
      for (int64_t p1 = item.source[1].begin; p1 < item.source[1].end; ++p1) {
        const S* from = attn_.tokens.at(b, head) + where(0, p0) + where(1, p1);
        for (int64_t i = 0; i < n; i += lanes)
          kernels_.slot_mover.read(std::min(lanes, n - i), window_, from, offset.data() + i, to + i,
                                   pitch);
        to += window_ * pitch;
      }
    }
  }

  Kernels<S, T> kernels_;
  int64_t window_;
  Plan plan_;
  Operand<S> attn_, x_, out_;
};

// (B, H, N, c): plain products over all queries, a head on one thread, lest the bits depend on
// their number.
at::Tensor of_more(const at::Tensor& attn, const at::Tensor& x, int64_t window) {
  const auto type = accumulate_type(x);
  const auto rows = [](const at::Tensor& t) { return t.detach().flatten(2, -2); };
  const auto a = rows(attn.slice(-1, window)), b = rows(x);
  const int64_t heads = a.size(1), problems = a.size(0) * heads;
  auto sums = at::zeros({a.size(0), heads, a.size(3), b.size(3)}, x.options());
  if (sums.numel() == 0) return sums;
  at::parallel_for(0, std::max<int64_t>(problems, 2), 1, [&](int64_t first, int64_t last) {
    const at::NoGradGuard none;
    for (int64_t i = first; i < std::min(last, problems); ++i) {
      const auto of = [&](const at::Tensor& t) { return t[i / heads][i % heads].to(type); };
      sums[i / heads][i % heads].copy_(at::mm(of(a).t(), of(b)));
    }
  });
  return sums;
}

}  // namespace

KeySums window_key_sums(const at::Tensor& attn, const at::Tensor& x, const std::vector<Axis>& axes,
                        CpuLevel level) {
  const auto type = x.scalar_type();
  auto keys = with_kernels(type, level, [&]<class S, class T>(const Kernels<S, T>& kernels) {
    return OfKeys<S, T>(attn, x, axes, kernels).run();
  });
  return {keys.to(type), of_more(attn, x, window_size(three_axes(axes)))};
}

}  // namespace halcyon::neighborhood
