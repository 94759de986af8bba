// SPDX-License-Identifier: Apache-2.0
#define HALCYON_VECTOR_BYTES 16
#include "halcyon/ops/adaln/cpu_kernel-inl.h"

namespace halcyon::adaln_detail {

KernelTable kernels_default() {
  return make_kernels();
}

}  // namespace halcyon::adaln_detail
