// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "halcyon/base/large_pages.h"
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
  Call(const Inputs& in, const Kernel<S, T>& kernel, std::optional<Form> form)
      : kernel_(kernel),
        type_(c10::CppTypeToScalarType<T>::value),
        storage_(std::is_same_v<S, Bf16> ? at::kBFloat16 : type_),
        q_(rows(in.q, storage_)),
        k_(rows(in.k, storage_)),
        v_(rows(in.v, storage_)) {
    const int64_t frames = in.q.size(1), head_dim = in.q.size(4);
    constexpr int64_t kRow = 16;  // elements of the widest vector
    const int64_t table_row = (head_dim + kRow - 1) / kRow * kRow;
    if (in.cos) {
      const auto table = [&](const at::Tensor& t) {
        auto rows = at::zeros({frames, table_row}, at::dtype(type_));
        rows.narrow(1, 0, head_dim).copy_(t);
        return rows;
      };
      cos_ = table(*in.cos);
      turn_ = table(*in.sin);
      turn_.unflatten(1, {table_row / 2, 2}).select(2, 0).neg_();
    }
    const int64_t window = std::min(in.window.value_or(frames), frames);
    problem_ = {frames,
                in.q.size(2),
                in.q.size(3),
                head_dim,
                in.linear,
                in.causal,
                window,
                static_cast<T>(1.0 / std::sqrt(static_cast<double>(head_dim))),
                in.cos ? cos_.const_data_ptr<T>() : nullptr,
                in.cos ? turn_.const_data_ptr<T>() : nullptr,
                table_row,
                form.value_or(best_form(frames, head_dim, in.linear, in.causal, window))};
  }

  at::Tensor forward() const {
    const auto out = on_large_pages(at::empty(q_.sizes(), q_.options()));
    in_parallel([&](int64_t first, int64_t last, T* scratch) {
      kernel_.forward(problem_, read(q_), read(k_), read(v_), write(out), first, last, scratch);
    });
    return out;
  }

  at::Tensor backward(const at::Tensor& grad) const {
    const auto grad_out = rows(grad, storage_);
    auto shape = q_.sizes().vec();
    shape.insert(shape.begin() + 3, 3);
    const auto joint = on_large_pages(at::empty(shape, q_.options()));
    const auto grads = joint.unbind(3);
    in_parallel([&](int64_t first, int64_t last, T* scratch) {
      kernel_.backward(problem_, read(q_), read(k_), read(v_), read(grad_out), write(grads[0]),
                       write(grads[1]), write(grads[2]), first, last, scratch);
    });
    return joint;
  }

 private:
  template <class F>
  void in_parallel(const F& work) const {
    const auto& p = problem_;
    const int64_t in_pixel = p.form == Form::pairs ? 1 : p.heads;
    const int64_t cost = p.frames * (p.heads / in_pixel) * p.head_dim * (p.frames + 8);
    const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(cost, 1));
    at::parallel_for(0, q_.size(0) * p.pixels * in_pixel, grain, [&](int64_t first, int64_t last) {
      const auto scratch = at::empty({kernel_.scratch_size(p)}, at::dtype(type_));
      work(first, last, scratch.template mutable_data_ptr<T>());
    });
  }
  static Frames<const S> read(const at::Tensor& t) {
    return {static_cast<const S*>(t.const_data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
  }
  static Frames<S> write(const at::Tensor& t) {
    return {static_cast<S*>(t.mutable_data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
  }

  Kernel<S, T> kernel_;
  at::ScalarType type_, storage_;
  at::Tensor q_, k_, v_, cos_, turn_;
  Problem<T> problem_;
};

template <class F>
auto dispatch(const Inputs& in, CpuLevel level, std::optional<Form> form, const F& f) {
  const auto table = at_level(level, kernels_default, kernels_avx2, kernels_avx512)();
  if (in.q.scalar_type() == at::kDouble) return f(Call<double, double>(in, table.f64, form));
  if (in.q.scalar_type() == at::kBFloat16) return f(Call<Bf16, float>(in, table.bf16, form));
  return f(Call<float, float>(in, table.f32, form));
}

}  // namespace

at::Tensor forward_cpu(const Inputs& in, CpuLevel level, std::optional<Form> form) {
  return dispatch(in, level, form, [](const auto& call) { return call.forward(); })
      .to(in.q.scalar_type());
}

Gradients backward_cpu(const Inputs& in, const at::Tensor& grad_out, CpuLevel level,
                       std::optional<Form> form) {
  const auto joint = dispatch(in, level, form, [&](const auto& call) {
                       return call.backward(grad_out);
                     }).to(in.q.scalar_type());
  return {joint, joint.select(3, 0), joint.select(3, 1), joint.select(3, 2)};
}

}  // namespace halcyon::temporal_detail
