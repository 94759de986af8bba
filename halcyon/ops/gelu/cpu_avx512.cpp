// SPDX-License-Identifier: Apache-2.0
#define HALCYON_VECTOR_BYTES 64
#include "halcyon/ops/gelu/cpu_kernel-inl.h"

namespace halcyon::gelu_detail {

KernelTable kernels_avx512() {
  return make_kernels();
}

}  // namespace halcyon::gelu_detail
