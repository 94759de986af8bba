// SPDX-License-Identifier: Apache-2.0
#define HALCYON_VECTOR_BYTES 16
#include "halcyon/ops/linear/cpu_kernel-inl.h"

namespace halcyon::linear_detail {

KernelTable kernels_default() {
  return make_kernels();
}

}  // namespace halcyon::linear_detail
