// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "halcyon/ops/storage.h"

// Between gelu.cpp and the kernels, compiled once for each instruction set.
namespace halcyon::gelu_detail {

template <class S>
struct Kernels {
  void (*forward)(int64_t size, const S* x, S* y);
  void (*backward)(int64_t size, const S* grad_y, const S* x, S* grad_x);
};

struct KernelTable {
  Kernels<float> f32;
  Kernels<Bf16> bf16;
};

KernelTable kernels_default();
KernelTable kernels_avx2();
KernelTable kernels_avx512();

}  // namespace halcyon::gelu_detail
