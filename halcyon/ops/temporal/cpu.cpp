// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "halcyon/ops/temporal/backends.h"
#include "halcyon/ops/temporal/cpu_kernel.h"

namespace halcyon::temporal_detail {
namespace {

// Heads and channels contiguous, which views into a joint projection are already.
at::Tensor rows(const at::Tensor& t, at::ScalarType type) {
  const auto cast = t.to(type);
  const bool fits = cast.stride(4) == 1 && cast.stride(3) == cast.size(4);
  return fits ? cast : cast.contiguous();
}

template <class S, class T>
class Call {
 public:
  Call(const Inputs& in, const Kernel<S, T>& kernel)
      : kernel_(kernel),
        type_(c10::CppTypeToScalarType<T>::value),
        storage_(std::is_same_v<S, Bf16> ? at::kBFloat16 : type_),
        q_(rows(in.q, storage_)),
        k_(rows(in.k, storage_)),
        v_(rows(in.v, storage_)) {
    const int64_t frames = in.q.size(1), head_dim = in.q.size(4);
    if (in.cos) {
      cos_ = in.cos->to(type_).contiguous();
      turn_ = in.sin->to(type_).clone(at::MemoryFormat::Contiguous);
      turn_.unflatten(1, {head_dim / 2, 2}).select(2, 0).neg_();
    }
    problem_ = {frames,
                in.q.size(3),
                head_dim,
                in.linear,
                in.causal,
                std::min(in.window.value_or(frames), frames),
                static_cast<T>(1.0 / std::sqrt(static_cast<double>(head_dim))),
                in.cos ? cos_.const_data_ptr<T>() : nullptr,
                in.cos ? turn_.const_data_ptr<T>() : nullptr};
  }

  at::Tensor forward() const {
    const auto out = at::empty(q_.sizes(), q_.options());
    each_pixel([&](int64_t b, int64_t x, T* scratch) {
      kernel_.forward(problem_, read(q_, b, x), read(k_, b, x), read(v_, b, x), write(out, b, x),
                      scratch);
    });
    return out;
  }

  at::Tensor backward(const at::Tensor& grad) const {
    const auto grad_out = rows(grad, storage_);
    auto shape = q_.sizes().vec();
    shape.insert(shape.begin() + 3, 3);
    const auto joint = at::empty(shape, q_.options());
    const auto grads = joint.unbind(3);
    each_pixel([&](int64_t b, int64_t x, T* scratch) {
      kernel_.backward(problem_, read(q_, b, x), read(k_, b, x), read(v_, b, x),
                       read(grad_out, b, x), write(grads[0], b, x), write(grads[1], b, x),
                       write(grads[2], b, x), scratch);
    });
    return joint;
  }

 private:
  template <class F>
  void each_pixel(const F& work) const {
    const int64_t pixels = q_.size(2);
    const int64_t cost = q_.size(1) * q_.size(3) * q_.size(4) * (q_.size(1) + 8);
    const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(cost, 1));
    at::parallel_for(0, q_.size(0) * pixels, grain, [&](int64_t first, int64_t last) {
      const auto scratch = at::empty({kernel_.scratch_size(problem_)}, at::dtype(type_));
      for (int64_t i = first; i < last; ++i)
        work(i / pixels, i % pixels, scratch.template mutable_data_ptr<T>());
    });
  }
  static Frames<const S> read(const at::Tensor& t, int64_t b, int64_t x) {
    return {static_cast<const S*>(t.const_data_ptr()) + b * t.stride(0) + x * t.stride(2),
            t.stride(1)};
  }
  static Frames<S> write(const at::Tensor& t, int64_t b, int64_t x) {
    return {static_cast<S*>(t.mutable_data_ptr()) + b * t.stride(0) + x * t.stride(2), t.stride(1)};
  }

  Kernel<S, T> kernel_;
  at::ScalarType type_, storage_;
  at::Tensor q_, k_, v_, cos_, turn_;
  Problem<T> problem_;
};

template <class F>
auto dispatch(const Inputs& in, CpuLevel level, const F& f) {
  const auto table = at_level(level, kernels_default, kernels_avx2, kernels_avx512)();
  if (in.q.scalar_type() == at::kDouble) return f(Call<double, double>(in, table.f64));
  if (in.q.scalar_type() == at::kBFloat16) return f(Call<Bf16, float>(in, table.bf16));
  return f(Call<float, float>(in, table.f32));
}

}  // namespace

at::Tensor forward_cpu(const Inputs& in, CpuLevel level) {
  return dispatch(in, level, [](const auto& call) { return call.forward(); })
      .to(in.q.scalar_type());
}

Gradients backward_cpu(const Inputs& in, const at::Tensor& grad_out, CpuLevel level) {
  const auto joint = dispatch(in, level, [&](const auto& call) {
                       return call.backward(grad_out);
                     }).to(in.q.scalar_type());
  return {joint, joint.select(3, 0), joint.select(3, 1), joint.select(3, 2)};
}

}  // namespace halcyon::temporal_detail
