// SPDX-License-Identifier: Apache-2.0
#include "bench/support/ceilings.h"

#include <ATen/Parallel.h>
#include <immintrin.h>

#include <algorithm>
#include <chrono>

namespace halcyon::bench {
namespace {

constexpr int kChains = 12;  // more than the latency of one times the units
constexpr int64_t kRounds = 8'000'000;

// Sums that are used, lest the loop be left out.
#define HALCYON_CHAINS(TARGET, NAME, VECTOR, ZERO, STEP, LANE)                \
  __attribute__((target(TARGET))) float NAME() {                              \
    VECTOR sum[kChains];                                                      \
    _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) sum[i] = ZERO; \
    for (int64_t round = 0; round < kRounds; ++round) {                       \
      _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) {            \
        sum[i] = STEP;                                                        \
        asm volatile("" : "+v"(sum[i]));                                      \
      }                                                                       \
    }                                                                         \
    float total = 0;                                                          \
    _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) total += LANE; \
    return total;                                                             \
  }

HALCYON_CHAINS("avx2,fma", fma_avx2, __m256, _mm256_set1_ps(1.0f),
               _mm256_fmadd_ps(sum[i], _mm256_set1_ps(0.5f), _mm256_set1_ps(0.5f)),
               _mm256_cvtss_f32(sum[i]))
HALCYON_CHAINS("avx512f", fma_avx512, __m512, _mm512_set1_ps(1.0f),
               _mm512_fmadd_ps(sum[i], _mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f)),
               _mm512_cvtss_f32(sum[i]))
HALCYON_CHAINS("avx512f,avx512bf16", pairs_bf16, __m512, _mm512_set1_ps(0.0f),
               _mm512_dpbf16_ps(sum[i], (__m512bh)_mm512_set1_epi32(0),
                                (__m512bh)_mm512_set1_epi32(0)),
               _mm512_cvtss_f32(sum[i]))

// The best of several, every thread with the same work.
double rate(bool there, float (*run)(), double flops_a_step, float expected) {
  if (!there) return 0;
  const int threads = at::get_num_threads();
  double best = 0;
  for (int i = 0; i < 10; ++i) {
    const auto start = std::chrono::steady_clock::now();
    at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        if (run() != expected) std::abort();
      }
    });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, flops_a_step * kChains * kRounds * threads / took.count());
  }
  return best;
}

}  // namespace

const Ceilings& machine_ceilings() {
  static const Ceilings ceilings{
      rate(__builtin_cpu_supports("fma") != 0, fma_avx2, 16, kChains),
      rate(__builtin_cpu_supports("avx512f") != 0, fma_avx512, 32, kChains),
      rate(__builtin_cpu_supports("avx512bf16") != 0, pairs_bf16, 64, 0)};
  return ceilings;
}

}  // namespace halcyon::bench
