// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/sphere/sphere_call.h"

namespace halcyon::neighborhood {
namespace {

// As tiled_backward.cpp: over queries for their gradient, over keys for theirs. Who sees a pixel is
// whom it sees, so both go through the same lists.
template <class S, class T>
class Backward {
 public:
  Backward(const SphereInputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
           const at::Tensor& delta, const Kernels<S, T>& kernels)
      : in_(in),
        kernels_(kernels),
        query_(readable<S>(in.query)),
        key_(readable<S>(in.key)),
        value_(readable<S>(in.value)),
        grad_out_(readable<S>(grad_out)),
        lse_(lse.contiguous()),
        delta_(delta.contiguous()),
        grad_query_(at::empty(query_.sizes(), query_.options())),
        grad_key_(at::empty(key_.sizes(), query_.options())),
        grad_value_(at::empty(value_.sizes(), query_.options())),
        q_(query_),
        k_(key_),
        v_(value_),
        do_(grad_out_),
        dq_(grad_query_),
        dk_(grad_key_),
        dv_(grad_value_),
        lse_of_(lse_.unsqueeze(-1)),
        delta_of_(delta_.unsqueeze(-1)),
        groups_(key_.size(2)),
        per_group_(query_.size(2) / groups_),
        scale_(static_cast<T>(in.scale)),
        finite_q_(all_finite(query_)),
        finite_k_(all_finite(key_)),
        finite_do_(all_finite(grad_out_)) {
    one_.fill(T(1));
  }

  Gradients run() {
    each_block(*in_.lists, [&](auto&&... x) { queries(x...); });
    each_block(in_.lists_of_keys ? *in_.lists_of_keys : *in_.lists,
               [&](auto&&... x) { keys(x...); });
    return {grad_query_, grad_key_, grad_value_, {}, {}, {}};
  }

 private:
  // f(batch, group, list, scratch)
  template <class F>
  void each_block(const PixelLists& lists, const F& f) const {
    const int64_t blocks = lists.blocks();
    at::parallel_for(0, query_.size(0) * groups_ * blocks, 1, [&](int64_t first, int64_t last) {
      Scratch<T> scratch;
      for (int64_t i = first; i < last; ++i)
        f(i / blocks / groups_, i / blocks % groups_, BlockList(lists, i % blocks), scratch);
    });
  }

  void queries(int64_t b, int64_t group, const BlockList& list, Scratch<T>& scratch) const {
    const int64_t d = q_.channels, e = v_.channels;
    const int64_t d_pitch = padded(q_.channels, lanes_), e_pitch = padded(v_.channels, lanes_);
    T *rows_k = scratch(0, kMaxSources * d_pitch), *rows_v = scratch(1, kMaxSources * e_pitch);
    T *lanes_q = scratch(2, d * kBlock), *lanes_do = scratch(3, e * kBlock);
    T* sums = scratch(4, d_pitch * kBlock);
    T *s = scratch(5, kMaxSources * kBlock), *dp = scratch(6, kMaxSources * kBlock);
    std::array<T, kBlock> factor;
    factor.fill(scale_);
    for (int64_t head = group * per_group_; head < (group + 1) * per_group_; ++head) {
      pack_block(kernels_.mover, q_, b, head, list, scale_, lanes_q);
      pack_block(kernels_.mover, do_, b, head, list, T(1), lanes_do);
      std::array<T, kBlock> lse{}, delta{};
      const auto at = list.offsets(lse_of_);
      for (int64_t l = 0; l < list.size(); ++l) {
        const auto lane = static_cast<std::size_t>(l);
        lse[lane] = lse_of_.at(b, head)[at[lane]];
        delta[lane] = delta_of_.at(b, head)[at[lane]];
      }
      std::fill_n(sums, d_pitch * kBlock, T(0));
      list.each_piece([&](const int32_t* token, const uint16_t* bits, int64_t n) {
        gather_rows(kernels_.mover, k_, b, group, token, n, T(1), rows_k, d_pitch);
        gather_rows(kernels_.mover, v_, b, group, token, n, T(1), rows_v, e_pitch);
        kernels_.list.scores(n, d, d_pitch, rows_k, lanes_q, bits, s);
        kernels_.list.scores(n, e, e_pitch, rows_v, lanes_do, nullptr, dp);
        kernels_.list.query_gradient(n, lse.data(), delta.data(), s, dp);
        weigh_rows(kernels_.list, finite_k_, n, d_pitch, dp, rows_k, bits, sums, scratch);
      });
      write_block(kernels_.mover, dq_, b, head, list, sums, d_pitch, factor.data());
    }
  }

  void keys(int64_t b, int64_t group, const BlockList& list, Scratch<T>& scratch) const {
    const int64_t d = q_.channels, e = v_.channels;
    const int64_t d_pitch = padded(q_.channels, lanes_), e_pitch = padded(v_.channels, lanes_);
    T *rows_q = scratch(0, kMaxSources * d_pitch), *rows_do = scratch(1, kMaxSources * e_pitch);
    T *lanes_k = scratch(2, d * kBlock), *lanes_v = scratch(3, e * kBlock);
    T *sums_k = scratch(4, d_pitch * kBlock), *sums_v = scratch(7, e_pitch * kBlock);
    T *s = scratch(5, kMaxSources * kBlock), *dp = scratch(6, kMaxSources * kBlock);
    T *lse = scratch(8, kMaxSources), *delta = scratch(9, kMaxSources);
    pack_block(kernels_.mover, k_, b, group, list, T(1), lanes_k);
    pack_block(kernels_.mover, v_, b, group, list, T(1), lanes_v);
    std::fill_n(sums_k, d_pitch * kBlock, T(0));
    std::fill_n(sums_v, e_pitch * kBlock, T(0));
    for (int64_t head = group * per_group_; head < (group + 1) * per_group_; ++head) {
      list.each_piece([&](const int32_t* token, const uint16_t* bits, int64_t n) {
        gather_rows(kernels_.mover, q_, b, head, token, n, scale_, rows_q, d_pitch);
        gather_rows(kernels_.mover, do_, b, head, token, n, T(1), rows_do, e_pitch);
        gather_rows(kernels_.exact, lse_of_, b, head, token, n, T(1), lse, 1);
        gather_rows(kernels_.exact, delta_of_, b, head, token, n, T(1), delta, 1);
        kernels_.list.scores(n, d, d_pitch, rows_q, lanes_k, bits, s);
        kernels_.list.scores(n, e, e_pitch, rows_do, lanes_v, nullptr, dp);
        kernels_.list.key_gradient(n, lse, delta, s, dp);
        weigh_rows(kernels_.list, finite_q_, n, d_pitch, dp, rows_q, bits, sums_k, scratch);
        weigh_rows(kernels_.list, finite_do_, n, e_pitch, s, rows_do, bits, sums_v, scratch);
      });
    }
    write_block(kernels_.mover, dk_, b, group, list, sums_k, d_pitch, one_.data());
    write_block(kernels_.mover, dv_, b, group, list, sums_v, e_pitch, one_.data());
  }

  const SphereInputs& in_;
  Kernels<S, T> kernels_;
  at::Tensor query_, key_, value_, grad_out_, lse_, delta_, grad_query_, grad_key_, grad_value_;
  Pixels<S> q_, k_, v_, do_, dq_, dk_, dv_;
  Pixels<T> lse_of_, delta_of_;
  int64_t groups_, per_group_;
  int lanes_ = kernels_.kernel.lanes;
  T scale_;
  bool finite_q_, finite_k_, finite_do_;
  std::array<T, kBlock> one_;
};

}  // namespace

Gradients sphere_backward(const SphereInputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                          const at::Tensor& delta, CpuLevel level) {
  const auto type = in.query.scalar_type();
  const auto grad = with_kernels(type, level, [&]<class S, class T>(const Kernels<S, T>& kernels) {
    return Backward<S, T>(in, lse, grad_out, delta, kernels).run();
  });
  return {grad.query.to(type), grad.key.to(type), grad.value.to(type), {}, {}, {}};
}

}  // namespace halcyon::neighborhood
