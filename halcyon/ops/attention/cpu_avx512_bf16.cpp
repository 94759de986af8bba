// SPDX-License-Identifier: Apache-2.0
#define HALCYON_VECTOR_BYTES 64
#include "halcyon/ops/attention/cpu_kernel.h"
#ifdef __AVX512BF16__
#include "halcyon/ops/attention/cpu_kernel-inl.h"
#endif

namespace halcyon::attention_detail {

const Kernels<Bf16, float>* kernels_avx512_bf16() {
#ifdef __AVX512BF16__
  static constexpr auto kKernels = make<Bf16, Bf16Pair>();
  return &kKernels;
#else
  return nullptr;
#endif
}

}  // namespace halcyon::attention_detail
