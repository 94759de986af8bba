// SPDX-License-Identifier: Apache-2.0
#define HALCYON_VECTOR_BYTES 16
#include "halcyon/ops/attention/cpu_kernel-inl.h"

namespace halcyon::attention_detail {

KernelTable kernels_default() {
  return {make<float, float>(), make<Bf16, float>(), make<double, double>()};
}

}  // namespace halcyon::attention_detail
