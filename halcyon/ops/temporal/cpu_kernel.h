// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "halcyon/ops/storage.h"
#include "halcyon/ops/temporal/form.h"

// Between the driver (cpu.cpp) and the kernels, compiled once for each instruction set.
namespace halcyon::temporal_detail {

// (B, T, X, H, d) with heads and channels contiguous; the strides of the rest in elements.
template <class S>
struct Frames {
  S* data;
  int64_t batch, frame, pixel;
};

template <class T>
struct Problem {
  int64_t frames, pixels, heads, head_dim;
  bool linear, causal;
  int64_t window;  // at least frames where there is none
  T scale;
  const T* cos;       // (frames, table_row), zero from head_dim on; or null without rotation
  const T* turn;      // likewise: -sin in even channels, sin in odd ones
  int64_t table_row;  // a multiple of every vector
  Form form;
};

// Items first .. last of a call: its pixels, or each head of each pixel (Form). None shares a sum
// with another.
template <class S, class T>
struct Kernel {
  int64_t (*scratch_size)(const Problem<T>&);  // in elements of T
  void (*forward)(const Problem<T>&, Frames<const S> q, Frames<const S> k, Frames<const S> v,
                  Frames<S> out, int64_t first, int64_t last, T* scratch);
  void (*backward)(const Problem<T>&, Frames<const S> q, Frames<const S> k, Frames<const S> v,
                   Frames<const S> grad_out, Frames<S> grad_q, Frames<S> grad_k, Frames<S> grad_v,
                   int64_t first, int64_t last, T* scratch);
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
