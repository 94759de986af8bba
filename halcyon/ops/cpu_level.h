// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace halcyon {

// The instruction sets that kernels are compiled for; each contains those before it.
enum class CpuLevel { baseline, avx2, avx512 };

// The best that this machine has, or less where the environment variable ATEN_CPU_CAPABILITY
// (default, avx2, avx512) says so; asked once.
CpuLevel cpu_level();

// One of three: dispatch reads at_level(level, kernels_default, kernels_avx2, kernels_avx512)().
template <class T>
T at_level(CpuLevel level, T baseline, T avx2, T avx512) {
  if (level == CpuLevel::avx512) return avx512;
  return level == CpuLevel::avx2 ? avx2 : baseline;
}

}  // namespace halcyon
