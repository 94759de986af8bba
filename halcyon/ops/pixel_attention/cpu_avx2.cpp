// SPDX-License-Identifier: Apache-2.0
#define HALCYON_VECTOR_BYTES 32
#include "halcyon/ops/pixel_attention/cpu_kernel-inl.h"

namespace halcyon::pixel_attention_detail {

KernelTable kernels_avx2() {
  return make_kernels();
}

}  // namespace halcyon::pixel_attention_detail
