// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "halcyon/ops/storage.h"

// Between the driver (cpu.cpp) and the kernels, compiled once for each instruction set. All work on
// contiguous rows (rows, width) of one sample, whose condition is (width,); they add to the sums of
// what they are told to.
namespace halcyon::adaln_detail {

// out = shift + factor * (x - mean) * inverse, with inverse = 1 / sqrt(variance + eps). The forward
// makes mean and inverse (rows,).
template <class S, class T>
struct Norm {
  void (*forward)(int64_t rows, int64_t width, T eps, const S* x, const T* shift, const T* factor,
                  S* out, T* mean, T* inverse);
  void (*backward)(int64_t rows, int64_t width, const S* grad_out, const S* x, const T* factor,
                   const T* mean, const T* inverse, S* grad_x, T* add_shift, T* add_factor);
};

// out = residual + gate * branch. The branch may be stored in fewer bits.
template <class S, class R, class T>
struct Gate {
  void (*forward)(int64_t rows, int64_t width, const S* residual, const R* branch, const T* gate,
                  S* out);
  void (*backward)(int64_t rows, int64_t width, const S* grad_out, const R* branch, const T* gate,
                   R* grad_branch, T* add_gate);
};

struct KernelTable {
  Norm<float, float> norm_f32;
  Norm<Bf16, float> norm_bf16;
  Norm<double, double> norm_f64;
  Gate<float, float, float> gate_f32;
  Gate<float, Bf16, float> gate_f32_bf16;
  Gate<Bf16, Bf16, float> gate_bf16;
  Gate<double, double, double> gate_f64;
};

KernelTable kernels_default();
KernelTable kernels_avx2();
KernelTable kernels_avx512();

}  // namespace halcyon::adaln_detail
