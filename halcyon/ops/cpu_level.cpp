// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/cpu_level.h"

#include <ATen/Version.h>

#include <string>

namespace halcyon {

CpuLevel cpu_level() {
  static const CpuLevel level = [] {
    const std::string name = at::get_cpu_capability();
    if (name.find("AVX512") != std::string::npos) return CpuLevel::avx512;
    return name.find("AVX2") != std::string::npos ? CpuLevel::avx2 : CpuLevel::baseline;
  }();
  return level;
}

}  // namespace halcyon
