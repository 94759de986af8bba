// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/unfused_call.h"

namespace halcyon::neighborhood {
namespace {

// Of one axis, by token: the relative position of its first key, which is the same for all whose
// windows are not held back by a border.
std::vector<int64_t> first_positions(const Axis& axis) {
  std::vector<int64_t> first;
  for (int64_t i = 0; i < axis.length; ++i) {
    const int64_t g = i / axis.dilation;
    first.push_back(window(axis, g, group_size(axis, i % axis.dilation)).start - g + axis.kernel -
                    1);
  }
  return first;
}

template <class T>
class BiasSums {
 public:
  BiasSums(const at::Tensor& attn, const std::vector<Axis>& axes)
      : axes_(three_axes(axes)), window_(window_size(axes_)), attn_(attn, axes.size()) {
    for (std::size_t a = 0; a < kMaxAxes; ++a) {
      tokens_ *= axes_[a].length;
      positions_ *= 2 * axes_[a].kernel - 1;
      first_[a] = first_positions(axes_[a]);
    }
  }

  // (H, positions); the shares do not depend on the number of threads
  at::Tensor run() {
    const int64_t batch = attn_.tensor.size(0), heads = attn_.tensor.size(1);
    const int64_t shares = std::clamp<int64_t>(shares_of(batch * heads, true), 1, tokens_);
    auto tables = at::zeros({batch * shares, heads, positions_}, attn_.tensor.options());
    at::parallel_for(0, batch * shares * heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> sums(static_cast<std::size_t>(window_));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t share = i / heads % shares;
        add(attn_.tokens.at(i / heads / shares, i % heads), tokens_ * share / shares,
            tokens_ * (share + 1) / shares, sums.data(),
            tables.template mutable_data_ptr<T>() + i * positions_);
      }
    });
    return tables.sum(0);
  }

 private:
  // Tokens whose windows have one place relative to them are summed slot by slot first.
  void add(const T* attn, int64_t begin, int64_t end, T* sums, T* table) const {
    int64_t place = -1;
    for (int64_t token = begin; token < end; ++token) {
      const int64_t i2 = token % axes_[2].length, row = token / axes_[2].length,
                    i1 = row % axes_[1].length, i0 = row / axes_[1].length;
      const auto first = [&](std::size_t a, int64_t i) {
        return first_[a][static_cast<std::size_t>(i)];
      };
      const int64_t here = at(first(0, i0), first(1, i1), first(2, i2));
      if (here != place) {
        if (place >= 0) flush(sums, table + place);
        std::fill_n(sums, window_, T(0));
        place = here;
      }
      const T* from =
          attn + i0 * attn_.tokens.step(0) + i1 * attn_.tokens.step(1) + i2 * attn_.tokens.step(2);
      for (int64_t s = 0; s < window_; ++s) sums[s] += from[s];
    }
    if (place >= 0) flush(sums, table + place);
  }

  void flush(const T* sums, T* table) const {
    for (int64_t s0 = 0; s0 < axes_[0].kernel; ++s0) {
      for (int64_t s1 = 0; s1 < axes_[1].kernel; ++s1) {
        T* to = table + at(s0, s1, 0);
        for (int64_t s2 = 0; s2 < axes_[2].kernel; ++s2) to[s2] += *sums++;
      }
    }
  }

  int64_t at(int64_t r0, int64_t r1, int64_t r2) const {
    return (r0 * (2 * axes_[1].kernel - 1) + r1) * (2 * axes_[2].kernel - 1) + r2;
  }

  Axes axes_;
  int64_t window_, tokens_ = 1, positions_ = 1;
  Operand<T> attn_;
  std::array<std::vector<int64_t>, kMaxAxes> first_;
};

}  // namespace

at::Tensor window_bias_sums(const at::Tensor& attn, const std::vector<Axis>& axes) {
  std::vector<int64_t> shape{attn.size(1)};
  for (const auto& axis : axes) shape.push_back(2 * axis.kernel - 1);
  const auto sums = attn.scalar_type() == at::kDouble ? BiasSums<double>(attn, axes).run()
                                                      : BiasSums<float>(attn, axes).run();
  return sums.view(shape).to(attn.scalar_type());
}

}  // namespace halcyon::neighborhood
