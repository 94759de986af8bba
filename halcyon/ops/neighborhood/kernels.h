// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "halcyon/ops/cpu_level.h"
#include "halcyon/ops/dense_rows.h"
#include "halcyon/ops/neighborhood/cpu_kernel.h"

// The kernels of a dtype, and what every driver of them does with tensors.
namespace halcyon::neighborhood {

// A tensor of the storage type whose channels are contiguous.
template <class S>
at::Tensor readable(const at::Tensor& t) {
  constexpr auto kType = std::is_same_v<S, Bf16>     ? at::kBFloat16
                         : std::is_same_v<S, double> ? at::kDouble
                                                     : at::kFloat;
  return with_dense_rows(t.to(kType));
}

// Channels in whole vectors.
inline int64_t padded(int64_t channels, int lanes) {
  return (channels + lanes - 1) / lanes * lanes;
}

// A thread's buffers, by number, which grow and serve one item after another.
template <class T>
class Scratch {
 public:
  T* operator()(std::size_t buffer, int64_t elements) {
    if (buffer >= parts_.size()) parts_.resize(buffer + 1);
    auto& part = parts_[buffer];
    if (!part.defined() || part.numel() < elements)
      part = at::empty({elements}, at::dtype(c10::CppTypeToScalarType<T>::value));
    return part.template mutable_data_ptr<T>();
  }

 private:
  std::vector<at::Tensor> parts_;
};

// What computes in T what is stored as S; exact moves lse and delta, which are stored as T.
template <class S, class T>
struct Kernels {
  Kernel<T> kernel;
  ListKernel<T> list;
  Mover<S, T> mover;
  Mover<T, T> exact;
  SlotKernel<T> slots;
  SlotMover<S, T> slot_mover;
};

// Calls f(Kernels) with the types that compute tensors of this type.
template <class F>
auto with_kernels(at::ScalarType type, CpuLevel level, const F& f) {
  const auto t = at_level(level, kernels_default, kernels_avx2, kernels_avx512)();
  if (type == at::kDouble)
    return f(Kernels<double, double>{t.f64, t.list_f64, t.move_f64, t.move_f64, t.slots.f64,
                                     t.slots.move_f64});
  if (type == at::kBFloat16)
    return f(Kernels<Bf16, float>{t.f32, t.list_f32, t.move_bf16, t.move_f32, t.slots.f32,
                                  t.slots.move_bf16});
  return f(Kernels<float, float>{t.f32, t.list_f32, t.move_f32, t.move_f32, t.slots.f32,
                                 t.slots.move_f32});
}

}  // namespace halcyon::neighborhood
