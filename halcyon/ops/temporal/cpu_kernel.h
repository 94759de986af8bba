// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "halcyon/ops/storage.h"

// Between the driver (cpu.cpp) and the kernels, compiled once for each instruction set.
namespace halcyon::temporal_detail {

// One pixel's frames: frame t has (heads, head_dim) contiguous at data + t * stride.
template <class S>
struct Frames {
  S* data;
  int64_t stride;
};

template <class T>
struct Problem {
  int64_t frames, heads, head_dim;
  bool linear, causal;
  int64_t window;  // at least frames where there is none
  T scale;
  const T* cos;   // (frames, head_dim), or null without rotation
  const T* turn;  // (frames, head_dim): -sin in even channels, sin in odd ones
};

template <class S, class T>
struct Kernel {
  int64_t (*scratch_size)(const Problem<T>&);  // in elements of T
  void (*forward)(const Problem<T>&, Frames<const S> q, Frames<const S> k, Frames<const S> v,
                  Frames<S> out, T* scratch);
  void (*backward)(const Problem<T>&, Frames<const S> q, Frames<const S> k, Frames<const S> v,
                   Frames<const S> grad_out, Frames<S> grad_q, Frames<S> grad_k, Frames<S> grad_v,
                   T* scratch);
};

struct KernelTable {
  Kernel<float, float> f32;
  Kernel<Bf16, float> bf16;
  Kernel<double, double> f64;
};

KernelTable kernels_default();
KernelTable kernels_avx2();
KernelTable kernels_avx512();

}  // namespace halcyon::temporal_detail
