// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "halcyon/base/large_pages.h"
#include "halcyon/ops/neighborhood/held_rows.h"
#include "halcyon/ops/neighborhood/tiled_call.h"

namespace halcyon::neighborhood {
namespace {

template <class S, class T>
class Forward {
 public:
  Forward(const Inputs& in, const Kernels<S, T>& kernels, const Tiling& tiling)
      : kernel_(kernels.kernel),
        mover_(kernels.mover),
        tiling_(tiling),
        axes_(three_axes(in.axes)),
        plan_(axes_,
              Plan::Rings{(in.query.size(-1) + in.value.size(-1)) * static_cast<int64_t>(sizeof(T)),
                          bytes_of(tiling), shares_of(in.query.size(0) * in.key.size(-2), false)}),
        query_(readable<S>(in.query)),
        key_(readable<S>(in.key)),
        value_(readable<S>(in.value)),
        scale_(static_cast<T>(in.scale)) {
    auto shape = query_.sizes().vec();
    shape.back() = value_.size(-1);
    out_ = on_large_pages(at::empty(shape, query_.options()));
    shape.pop_back();
    lse_ = at::empty(shape, query_.options().dtype(in.accumulate()));
    if (in.bias) bias_ = in.bias->to(in.accumulate()).contiguous();
    const auto n = in.axes.size();
    q_ = {query_, n};
    k_ = {key_, n};
    v_ = {value_, n};
    o_ = {out_, n};
    l_ = {lse_.unsqueeze(-1), n};
  }

  Output run() {
    const int64_t groups = key_.size(-2), items = static_cast<int64_t>(plan_.items().size());
    at::parallel_for(0, query_.size(0) * groups * items, 1, [&](int64_t first, int64_t last) {
      Scratch<T> scratch;
      for (int64_t i = first; i < last; ++i) {
        const auto& item = plan_.items()[static_cast<std::size_t>(i % items)];
        work(i / items / groups, i / items % groups, item, scratch);
      }
    });
    return {out_, lse_};
  }

 private:
  void work(int64_t b, int64_t group, const Item& item, Scratch<T>& scratch) {
    const int lanes = kernel_.lanes;
    const int64_t d = q_.channels(), capacity = capacity_of(item, kMaxSlots, tiling_),
                  pitch = pitch_of(item, lanes);
    const int64_t width = item.source[2].size(), channels = padded(v_.channels(), lanes);
    T* keys = scratch(0, item.rows() * d * pitch);
    T* values = scratch(1, item.rows() * width * channels);
    T* queries = scratch(2, kMaxVectors * d * lanes);
    T* sums = scratch(3, kMaxVectors * lanes * channels);
    T* scores = scratch(4, kMaxVectors * capacity * lanes);
    T* max = scratch(5, kMaxVectors * lanes);
    T* sum = scratch(6, kMaxVectors * lanes);
    const int64_t per_group = query_.size(-2) / key_.size(-2);
    const RowReader<S, T> key_rows(mover_, axes_, item, k_, b, group),
        value_rows(mover_, axes_, item, v_, b, group);
    HeldRows held(item);
    Tiler tiler(plan_, item, lanes, capacity);
    tiler.each_row([&](int64_t i0, int64_t i1) {
      held.require(
          tiler.planes(i0), tiler.rows(i1),
          [&](int64_t p0, int64_t p1, int64_t row) {
            key_rows.pack(p0, p1, keys + row * d * pitch, pitch);
            value_rows.copy(p0, p1, values + row * width * channels, channels);
          },
          [](int64_t, int64_t, int64_t) {});
      tiler.each_of_row(i0, i1, [&](const TileTargets& targets, const std::vector<Tile>& steps) {
        for (int64_t head = group * per_group; head < (group + 1) * per_group; ++head) {
          pack_tile(mover_, axes_, item, q_, b, head, targets, lanes, scale_, queries);
          std::fill_n(max, kMaxVectors * lanes, -std::numeric_limits<T>::infinity());
          std::fill_n(sum, kMaxVectors * lanes, T(0));
          std::fill_n(sums, targets.vectors * lanes * channels, T(0));
          for (const Tile& tile : steps) {
            kernel_.scores(tile, queries, {keys, d, pitch}, table(head), scores);
            kernel_.soften(tile, channels, scores, max, sum, sums);
            kernel_.weigh(tile, targets.valid, scores, {values, width, channels}, sums);
          }
          finish(b, head, item, targets, sums, max, sum, channels);
        }
      });
    });
  }

  const T* table(int64_t head) const {
    return bias_.defined() ? bias_.template const_data_ptr<T>() + head * bias_.stride(0) : nullptr;
  }

  void finish(int64_t b, int64_t head, const Item& item, const TileTargets& targets, const T* sums,
              const T* max, T* sum, int64_t channels) {
    const int lanes = kernel_.lanes;
    each_vector(axes_, item, l_, targets, lanes, [&](int v, const int64_t* at) {
      for (int64_t l = 0; l < targets.valid; ++l) {
        T& total = sum[v * lanes + l];
        l_.at(b, head)[at[l]] = max[v * lanes + l] + std::log(total);
        total = 1 / total;
      }
    });
    each_vector(axes_, item, o_, targets, lanes, [&](int v, const int64_t* at) {
      mover_.scatter(targets.valid, o_.channels(), sums + v * lanes * channels, channels,
                     sum + v * lanes, o_.at(b, head), at);
    });
  }

  Kernel<T> kernel_;
  Mover<S, T> mover_;
  Tiling tiling_;
  Axes axes_;
  Plan plan_;
  at::Tensor query_, key_, value_, out_, lse_, bias_;
  Tokens<S> q_, k_, v_, o_;
  Tokens<T> l_;
  T scale_;
};

}  // namespace

Output forward_tiled(const Inputs& in, CpuLevel level, const Tiling& tiling) {
  const auto result = with_kernels(in.query.scalar_type(), level,
                                   [&]<class S, class T>(const Kernels<S, T>& kernels) {
                                     return Forward<S, T>(in, kernels, tiling).run();
                                   });
  return {result.out.to(in.query.scalar_type()), result.lse};
}

}  // namespace halcyon::neighborhood
