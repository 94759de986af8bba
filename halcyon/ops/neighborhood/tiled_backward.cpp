// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/tiled_call.h"
#include "halcyon/ops/tuning/switches.h"

namespace halcyon::neighborhood {
namespace {

// With ds the gradient of the scores (delta_of), one pass over tiles of queries gives ds . k, one
// over tiles of keys ds . q and p . grad_out: each result has one writer, so that nothing depends
// on the number of threads.
template <class S, class T>
class Backward {
 public:
  Backward(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
           const at::Tensor& delta, const Kernels<S, T>& kernels)
      : kernel_(kernels.kernel),
        mover_(kernels.mover),
        exact_(kernels.exact),
        axes_(three_axes(in.axes)),
        query_(readable<S>(in.query)),
        key_(readable<S>(in.key)),
        value_(readable<S>(in.value)),
        grad_out_(readable<S>(grad_out)),
        lse_(lse.contiguous()),
        delta_(delta.contiguous()),
        scale_(static_cast<T>(in.scale)) {
    const auto type = in.accumulate();
    grad_query_ = at::empty(query_.sizes(), query_.options());
    grad_key_ = at::empty(key_.sizes(), query_.options());
    grad_value_ = at::empty(value_.sizes(), query_.options());
    if (in.bias) bias_ = in.bias->to(type).contiguous();
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
    each_item(Plan::queries, [&](auto&&... x) { queries(x...); });
    each_item(Plan::keys, [&](auto&&... x) { keys(x...); });
    if (bias_.defined()) grad_bias_ = grad_bias_.sum(0).view(bias_.sizes());
    return {grad_query_, grad_key_, grad_value_, grad_bias_, {}, {}};
  }

 private:
  // f(batch, group, plan, item, number of the item, scratch)
  template <class F>
  void each_item(Plan::Targets targets, const F& f) {
    const int64_t groups = key_.size(-2), pairs = query_.size(0) * groups;
    const Plan plan(axes_, targets,
                    2 * (query_.size(-1) + value_.size(-1)) * static_cast<int64_t>(sizeof(T)),
                    packed_bytes(), shares(pairs, targets));
    const auto items = static_cast<int64_t>(plan.items().size());
    if (bias_.defined() && targets == Plan::queries)
      grad_bias_ = at::zeros({query_.size(0) * items, bias_.size(0), bias_.numel() / bias_.size(0)},
                             bias_.options());
    at::parallel_for(0, pairs * items, 1, [&](int64_t first, int64_t last) {
      Scratch<T> scratch;
      for (int64_t i = first; i < last; ++i)
        f(i / items / groups, i / items % groups, plan,
          plan.items()[static_cast<std::size_t>(i % items)], i / items / groups * items + i % items,
          scratch);
    });
  }

  int64_t shares(int64_t heads, Plan::Targets targets) const {
    if (targets == Plan::queries) return shares_of(heads, bias_.defined());
    return is_kv_parallelism_in_fused_na_enabled() ? shares_of(heads, false)
                                                   : 4 / std::max<int64_t>(heads, 1);
  }

  void queries(int64_t b, int64_t group, const Plan& plan, const Item& item, int64_t number,
               Scratch<T>& scratch) {
    const int lanes = kernel_.lanes;
    const int64_t d = q_.channels(), e = v_.channels(), capacity = capacity_of(item);
    const int64_t pitch = pitch_of(item, lanes);
    T* box_k = scratch(0, item.rows() * d * pitch);
    T* box_v = scratch(1, item.rows() * e * pitch);
    pack_box(mover_, axes_, item, k_, b, group, T(1), box_k, pitch);
    pack_box(mover_, axes_, item, v_, b, group, T(1), box_v, pitch);
    T* tile_q = scratch(2, kMaxVectors * d * lanes);
    T* tile_do = scratch(3, kMaxVectors * e * lanes);
    T* tile_dq = scratch(4, kMaxVectors * d * lanes);
    T* s = scratch(5, kMaxVectors * capacity * lanes);
    T* dp = scratch(6, kMaxVectors * capacity * lanes);
    T* lse = scratch(7, kMaxVectors * lanes);
    T* delta = scratch(8, kMaxVectors * lanes);
    std::array<T, kMaxLanes> factor;
    factor.fill(scale_);
    const int64_t per_group = query_.size(-2) / key_.size(-2);
    Tiler tiler(plan, item, lanes, capacity);
    tiler.each([&](const TileTargets& targets, const std::vector<Tile>& steps) {
      for (int64_t head = group * per_group; head < (group + 1) * per_group; ++head) {
        pack_tile(mover_, axes_, item, q_, b, head, targets, lanes, scale_, tile_q);
        pack_tile(mover_, axes_, item, do_, b, head, targets, lanes, T(1), tile_do);
        gather(item, lse_of_, b, head, targets, lse);
        gather(item, delta_of_, b, head, targets, delta);
        std::fill_n(tile_dq, targets.vectors * d * lanes, T(0));
        for (const Tile& tile : steps) {
          kernel_.scores(tile, tile_q, {box_k, d, pitch}, table(head), s);
          kernel_.scores(unmasked(tile), tile_do, {box_v, e, pitch}, nullptr, dp);
          kernel_.query_gradient(tile, lse, delta, s, dp);
          kernel_.accumulate(tile, dp, {box_k, d, pitch}, tile_dq);
          if (bias_.defined()) bias_gradient(tile, targets, dp, number, head);
        }
        each_vector(axes_, item, dq_, targets, lanes, [&](int v, const int64_t* at) {
          mover_.unpack(targets.valid, d, tile_dq + v * d * lanes, lanes, factor.data(),
                        dq_.at(b, head), at);
        });
      }
    });
  }

  void keys(int64_t b, int64_t group, const Plan& plan, const Item& item, int64_t /*number*/,
            Scratch<T>& scratch) {
    const int lanes = kernel_.lanes;
    const int64_t d = q_.channels(), e = v_.channels(), capacity = capacity_of(item);
    const int64_t pitch = pitch_of(item, lanes), rows = item.rows();
    T* box_q = scratch(0, rows * d * pitch);
    T* box_do = scratch(1, rows * e * pitch);
    T* box_lse = scratch(2, rows * pitch);
    T* box_delta = scratch(3, rows * pitch);
    T* tile_k = scratch(4, kMaxVectors * d * lanes);
    T* tile_v = scratch(5, kMaxVectors * e * lanes);
    T* s = scratch(6, kMaxVectors * capacity * lanes);
    T* dp = scratch(7, kMaxVectors * capacity * lanes);
    // sums over the query heads of the group, tile by tile
    const int64_t width = (item.target[2].size() + lanes - 1) / lanes * lanes;
    const int64_t targets_padded = item.target[0].size() * item.target[1].size() * width;
    T* sum_k = scratch(8, targets_padded * d);
    T* sum_v = scratch(9, targets_padded * e);
    std::fill_n(sum_k, targets_padded * d, T(0));
    std::fill_n(sum_v, targets_padded * e, T(0));
    const int64_t per_group = query_.size(-2) / key_.size(-2);
    Tiler tiler(plan, item, lanes, capacity);
    for (int64_t head = group * per_group; head < (group + 1) * per_group; ++head) {
      pack_box(mover_, axes_, item, q_, b, head, scale_, box_q, pitch);
      pack_box(mover_, axes_, item, do_, b, head, T(1), box_do, pitch);
      pack_box(exact_, axes_, item, lse_of_, b, head, T(1), box_lse, pitch);
      pack_box(exact_, axes_, item, delta_of_, b, head, T(1), box_delta, pitch);
      T *dk = sum_k, *dv = sum_v;
      const bool last = head + 1 == (group + 1) * per_group;
      tiler.each([&](const TileTargets& targets, const std::vector<Tile>& steps) {
        pack_tile(mover_, axes_, item, k_, b, group, targets, lanes, T(1), tile_k);
        pack_tile(mover_, axes_, item, v_, b, group, targets, lanes, T(1), tile_v);
        for (const Tile& tile : steps) {
          kernel_.scores(tile, tile_k, {box_q, d, pitch}, table(head), s);
          kernel_.scores(unmasked(tile), tile_v, {box_do, e, pitch}, nullptr, dp);
          kernel_.key_gradient(tile, {box_lse, 1, pitch}, {box_delta, 1, pitch}, s, dp);
          kernel_.accumulate(tile, dp, {box_q, d, pitch}, dk);
          kernel_.accumulate(tile, s, {box_do, e, pitch}, dv);
        }
        if (last) {
          write(item, targets, dk, dk_, b, group);
          write(item, targets, dv, dv_, b, group);
        }
        dk += targets.vectors * d * lanes;
        dv += targets.vectors * e * lanes;
      });
    }
  }

  // Masked shifts have no weight already: what they hold need only be finite.
  static Tile unmasked(Tile tile) {
    tile.lanes.ragged = false;
    return tile;
  }

  void gather(const Item& item, const Tokens<T>& from, int64_t b, int64_t head,
              const TileTargets& targets, T* to) const {
    std::fill_n(to, kMaxVectors * kernel_.lanes, T(0));
    each_vector(axes_, item, from, targets, kernel_.lanes, [&](int v, const int64_t* at) {
      for (int64_t l = 0; l < targets.valid; ++l)
        to[v * kernel_.lanes + l] = from.at(b, head)[at[l]];
    });
  }

  void write(const Item& item, const TileTargets& targets, const T* from, const Tokens<S>& to,
             int64_t b, int64_t head) const {
    std::array<T, kMaxLanes> one;
    one.fill(T(1));
    const int lanes = kernel_.lanes;
    each_vector(axes_, item, to, targets, lanes, [&](int v, const int64_t* at) {
      mover_.unpack(targets.valid, to.channels(), from + v * to.channels() * lanes, lanes,
                    one.data(), to.at(b, head), at);
    });
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
  Mover<T, T> exact_;
  Axes axes_;
  at::Tensor query_, key_, value_, grad_out_, lse_, delta_, bias_;
  at::Tensor grad_query_, grad_key_, grad_value_, grad_bias_;
  Tokens<S> q_, k_, v_, do_, dq_, dk_, dv_;
  Tokens<T> lse_of_, delta_of_;
  T scale_;
};

}  // namespace

Gradients backward_tiled(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                         const at::Tensor& delta, CpuLevel level) {
  auto grad = with_kernels(in.query.scalar_type(), level,
                           [&]<class S, class T>(const Kernels<S, T>& kernels) {
                             return Backward<S, T>(in, lse, grad_out, delta, kernels).run();
                           });
  const auto type = in.query.scalar_type();
  if (in.bias) grad.bias = grad.bias.to(in.bias->scalar_type());
  return {grad.query.to(type), grad.key.to(type), grad.value.to(type), grad.bias, {}, {}};
}

}  // namespace halcyon::neighborhood
