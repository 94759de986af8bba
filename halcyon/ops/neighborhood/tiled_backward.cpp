// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/large_pages.h"
#include "halcyon/ops/neighborhood/gradient_rows.h"
#include "halcyon/ops/neighborhood/held_rows.h"
#include "halcyon/ops/neighborhood/shares.h"
#include "halcyon/ops/neighborhood/tiled_call.h"
#include "halcyon/ops/tuning/switches.h"

namespace halcyon::neighborhood {
namespace {

// One pass over tiles of queries: the weights once more, ds the gradient of the scores (delta_of),
// ds . k for the queries, and p^T . grad_out and ds^T . q into sums of the keys that the tile
// meets. A share's keys are its own, so that nothing depends on the number of threads; what queries
// of another share add to them is computed again.
template <class S, class T>
class Backward {
 public:
  Backward(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
           const at::Tensor& delta, const Kernels<S, T>& kernels, const Tiling& tiling)
      : kernel_(kernels.kernel),
        mover_(kernels.mover),
        tiling_(tiling),
        axes_(three_axes(in.axes)),
        query_(readable<S>(in.query)),
        key_(readable<S>(in.key)),
        value_(readable<S>(in.value)),
        grad_out_(readable<S>(grad_out)),
        lse_(lse.contiguous()),
        delta_(delta.contiguous()),
        scale_(static_cast<T>(in.scale)),
        groups_(key_.size(-2)),
        per_group_(query_.size(-2) / std::max<int64_t>(groups_, 1)),
        shares_(axes_, shares_of(query_.size(0) * groups_), most_places(tiling)) {
    grad_query_ = on_large_pages(at::empty(query_.sizes(), query_.options()));
    grad_key_ = on_large_pages(at::empty(key_.sizes(), query_.options()));
    grad_value_ = on_large_pages(at::empty(value_.sizes(), query_.options()));
    // a strided window may skip keys
    if (std::any_of(axes_.begin(), axes_.end(), [](const Axis& a) { return a.stride > 1; })) {
      grad_key_.zero_();
      grad_value_.zero_();
    }
    if (in.bias) {
      bias_ = in.bias->to(in.accumulate()).contiguous();
      grad_bias_ =
          at::zeros({query_.size(0) * count(), bias_.size(0), bias_[0].numel()}, bias_.options());
    }
    const auto n = in.axes.size();
    q_ = {query_, n};
    k_ = {key_, n};
    v_ = {value_, n};
    do_ = {grad_out_, n};
    dq_ = {grad_query_, n};
    dk_ = {grad_key_, n};
    dv_ = {grad_value_, n};
    lse_of_ = {lse_.unsqueeze(-1), n};
    delta_of_ = {delta_.unsqueeze(-1), n};
  }

  Gradients run() {
    const int64_t shares = count();
    at::parallel_for(0, query_.size(0) * groups_ * shares, 1, [&](int64_t first, int64_t last) {
      Scratch<T> scratch;
      for (int64_t i = first; i < last; ++i)
        work(i / shares / groups_, i / shares % groups_, i % shares, scratch);
    });
    if (bias_.defined()) grad_bias_ = grad_bias_.sum(0).view(bias_.sizes());
    return {grad_query_, grad_key_, grad_value_, grad_bias_, {}, {}};
  }

 private:
  static int64_t shares_of(int64_t heads) {
    const int64_t wanted = is_kv_parallelism_in_fused_na_enabled() ? 16 : 4;
    return (wanted + heads - 1) / std::max<int64_t>(heads, 1);
  }
  // Transposed keys and values, keys as they are, and two gradients; a quarter is what the caches
  // hold of it.
  int64_t most_places(const Tiling& tiling) const {
    const auto place =
        (3 * query_.size(-1) + 2 * value_.size(-1)) * static_cast<int64_t>(sizeof(T));
    return std::max<int64_t>(bytes_of(tiling) / 4 / std::max<int64_t>(place, 1), 256);
  }
  int64_t count() const { return static_cast<int64_t>(shares_.shares().size()); }

  // What a tile works on, besides the sources.
  struct Buffers {
    T *queries, *grads;         // transposed
    T *query_rows, *grad_rows;  // as they are
    T *grad_queries, *s, *dp, *lse, *delta;
  };

  void work(int64_t b, int64_t group, int64_t number, Scratch<T>& scratch) {
    const Share& share = shares_.shares()[static_cast<std::size_t>(number)];
    const Item& item = share.item;
    const int lanes = kernel_.lanes;
    const int64_t d = q_.channels(), e = v_.channels(), rows = item.rows(),
                  width = item.source[2].size(), dp = padded(d, lanes), ep = padded(e, lanes);
    int64_t pitch = 0, capacity = 1;
    for (const auto& part : share.parts) {
      pitch = std::max(pitch, pitch_of(part, lanes));
      capacity = std::max(capacity, capacity_of(part, kMaxBackwardSlots, tiling_));
    }
    T* box_k = scratch(0, rows * d * pitch);
    T* box_v = scratch(1, rows * e * pitch);
    T* rows_k = scratch(2, rows * width * dp);
    GradientRows<S, T> grad_k(mover_, axes_, share, dk_, b, group, scratch(3, rows * width * dp),
                              dp),
        grad_v(mover_, axes_, share, dv_, b, group, scratch(4, rows * width * ep), ep);
    const int64_t lanes_of_tile = kMaxVectors * lanes;
    const Buffers to{scratch(5, lanes_of_tile * d),
                     scratch(6, lanes_of_tile * e),
                     scratch(7, lanes_of_tile * dp),
                     scratch(8, lanes_of_tile * ep),
                     scratch(9, lanes_of_tile * dp),
                     scratch(10, lanes_of_tile * capacity),
                     scratch(11, lanes_of_tile * capacity),
                     scratch(12, lanes_of_tile),
                     scratch(13, lanes_of_tile)};
    const RowReader<S, T> key_rows(mover_, axes_, item, k_, b, group),
        value_rows(mover_, axes_, item, v_, b, group);
    HeldRows held(item);
    const auto come = [&](int64_t p0, int64_t p1, int64_t row) {
      key_rows.pack(p0, p1, box_k + row * d * pitch, pitch);
      value_rows.pack(p0, p1, box_v + row * e * pitch, pitch);
      key_rows.copy(p0, p1, rows_k + row * width * dp, dp);
      grad_k.come(row);
      grad_v.come(row);
    };
    const auto go = [&](int64_t p0, int64_t p1, int64_t row) {
      grad_k.go(p0, p1, row);
      grad_v.go(p0, p1, row);
    };
    for (std::size_t i = 0; i < share.parts.size(); ++i) {
      const Item& part = share.parts[i];
      const bool owned = i == share.owned;
      Tiler tiler(shares_.plan(), part, lanes, capacity);
      tiler.each_row([&](int64_t i0, int64_t i1) {
        held.require(tiler.planes(i0), tiler.rows(i1), come, go);
        tiler.each_of_row(i0, i1, [&](const TileTargets& targets, const std::vector<Tile>& steps) {
          for (int64_t head = group * per_group_; head < (group + 1) * per_group_; ++head) {
            read(part, targets, b, head, to);
            for (const Tile& tile : steps) {
              kernel_.scores(tile, to.queries, {box_k, d, pitch}, table(head), to.s);
              kernel_.scores(unmasked(tile), to.grads, {box_v, e, pitch}, nullptr, to.dp);
              kernel_.query_gradient(tile, to.lse, to.delta, to.s, to.dp);
              kernel_.spread(tile, targets.valid, to.dp, to.query_rows, grad_k.box());
              kernel_.spread(tile, targets.valid, to.s, to.grad_rows, grad_v.box());
              if (!owned) continue;
              kernel_.weigh(tile, targets.valid, to.dp, {rows_k, width, dp}, to.grad_queries);
              if (bias_.defined()) bias_gradient(tile, targets, to.dp, b * count() + number, head);
            }
            if (owned) write(part, targets, b, head, to);
          }
        });
      });
    }
    held.drop_all(go);
  }

  // The tile's queries and what belongs to them.
  void read(const Item& item, const TileTargets& targets, int64_t b, int64_t head,
            const Buffers& to) const {
    const int lanes = kernel_.lanes;
    const int64_t d = q_.channels(), e = v_.channels(), dp = padded(d, lanes),
                  ep = padded(e, lanes);
    pack_tile(mover_, axes_, item, q_, b, head, targets, lanes, scale_, to.queries);
    pack_tile(mover_, axes_, item, do_, b, head, targets, lanes, T(1), to.grads);
    each_vector(axes_, item, q_, targets, lanes, [&](int v, const int64_t* at) {
      mover_.gather(targets.valid, d, q_.at(b, head), at, scale_, to.query_rows + v * lanes * dp,
                    dp);
    });
    each_vector(axes_, item, do_, targets, lanes, [&](int v, const int64_t* at) {
      mover_.gather(targets.valid, e, do_.at(b, head), at, T(1), to.grad_rows + v * lanes * ep, ep);
    });
    for (const auto& [from, numbers] : {std::pair{&lse_of_, to.lse}, {&delta_of_, to.delta}}) {
      std::fill_n(numbers, kMaxVectors * lanes, T(0));
      each_vector(axes_, item, *from, targets, lanes, [&](int v, const int64_t* at) {
        for (int64_t l = 0; l < targets.valid; ++l)
          numbers[v * lanes + l] = from->at(b, head)[at[l]];
      });
    }
    std::fill_n(to.grad_queries, targets.vectors * lanes * dp, T(0));
  }

  void write(const Item& item, const TileTargets& targets, int64_t b, int64_t head,
             const Buffers& from) const {
    const int lanes = kernel_.lanes;
    const int64_t pitch = padded(dq_.channels(), lanes);
    std::array<T, kMaxLanes> factor;
    factor.fill(scale_);
    each_vector(axes_, item, dq_, targets, lanes, [&](int v, const int64_t* at) {
      mover_.scatter(targets.valid, dq_.channels(), from.grad_queries + v * lanes * pitch, pitch,
                     factor.data(), dq_.at(b, head), at);
    });
  }

  // Masked shifts have no weight already: what they hold need only be finite.
  static Tile unmasked(Tile tile) {
    tile.lanes.ragged = false;
    return tile;
  }

  const T* table(int64_t head) const {
    return bias_.defined() ? bias_.template const_data_ptr<T>() + head * bias_.stride(0) : nullptr;
  }
  void bias_gradient(const Tile& tile, const TileTargets& targets, const T* ds, int64_t number,
                     int64_t head) const {
    kernel_.bias_gradient(tile, targets.valid, ds,
                          grad_bias_.template mutable_data_ptr<T>() +
                              number * grad_bias_.stride(0) + head * grad_bias_.stride(1));
  }

  Kernel<T> kernel_;
  Mover<S, T> mover_;
  Tiling tiling_;
  Axes axes_;
  at::Tensor query_, key_, value_, grad_out_, lse_, delta_, bias_;
  at::Tensor grad_query_, grad_key_, grad_value_, grad_bias_;
  Tokens<S> q_, k_, v_, do_, dq_, dk_, dv_;
  Tokens<T> lse_of_, delta_of_;
  T scale_;
  int64_t groups_, per_group_;
  Shares shares_;
};

}  // namespace

Gradients backward_tiled(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                         const at::Tensor& delta, CpuLevel level, const Tiling& tiling) {
  auto grad = with_kernels(in.query.scalar_type(), level,
                           [&]<class S, class T>(const Kernels<S, T>& kernels) {
                             return Backward<S, T>(in, lse, grad_out, delta, kernels, tiling).run();
                           });
  const auto type = in.query.scalar_type();
  if (in.bias) grad.bias = grad.bias.to(in.bias->scalar_type());
  return {grad.query.to(type), grad.key.to(type), grad.value.to(type), grad.bias, {}, {}};
}

}  // namespace halcyon::neighborhood
