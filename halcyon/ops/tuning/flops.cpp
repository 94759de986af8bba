// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/tuning/flops.h"

#include <fmt/ranges.h>

#include "halcyon/base/error.h"

namespace halcyon {
namespace {

using c10::IntArrayRef;

int64_t times(const char* operation, int64_t a, int64_t b) {
  int64_t product = 0;
  HALCYON_CHECK(!__builtin_mul_overflow(a, b, &product), operation,
                "expected a count below 2^63, got {} * {}", a, b);
  return product;
}

void check_axes(const char* operation, const char* name, IntArrayRef values, std::size_t rank) {
  HALCYON_CHECK(values.size() == 1 || values.size() == rank, operation,
                "expected one {} or {}, one an axis, got {}", name, rank, values.size());
}

// Batch * heads * tokens * window of a tensor; heads first or last, they are multiplied.
int64_t pairs(const char* operation, IntArrayRef shape, IntArrayRef kernel_size,
              IntArrayRef dilation, IntArrayRef is_causal) {
  HALCYON_CHECK(shape.size() >= 4 && shape.size() <= 6, operation,
                "expected shapes of rank 4 to 6, got ({})", fmt::join(shape, ", "));
  const std::size_t rank = shape.size() - 3;
  check_axes(operation, "kernel_size", kernel_size, rank);
  check_axes(operation, "dilation", dilation, rank);
  check_axes(operation, "is_causal", is_causal, rank);
  int64_t count = 1;
  for (const int64_t size : shape.slice(0, shape.size() - 1)) {
    HALCYON_CHECK(size >= 0, operation, "expected sizes of 0 or more, got ({})",
                  fmt::join(shape, ", "));
    count = times(operation, count, size);
  }
  for (std::size_t axis = 0; axis < rank; ++axis) {
    const int64_t kernel = kernel_size[kernel_size.size() == 1 ? 0 : axis];
    HALCYON_CHECK(kernel >= 1, operation, "expected a kernel_size of 1 or more, got {}", kernel);
    count = times(operation, count, kernel);
  }
  return count;
}

void check_like(const char* operation, const char* name, IntArrayRef shape, IntArrayRef reference,
                bool same_width) {
  HALCYON_CHECK(
      shape.size() == reference.size() && (!same_width || shape.back() == reference.back()),
      operation, "expected {} of rank {}{}, got ({})", name, reference.size(),
      same_width ? fmt::format(" and width {}", reference.back()) : "", fmt::join(shape, ", "));
}

int64_t counted(const char* operation, int64_t pairs, int64_t width, bool return_macs) {
  return times(operation, times(operation, pairs, width), return_macs ? 1 : 2);
}

}  // namespace

int64_t fna_flop_count(IntArrayRef q_shape, IntArrayRef k_shape, IntArrayRef v_shape,
                       IntArrayRef kernel_size, IntArrayRef dilation, IntArrayRef is_causal,
                       bool /*is_heads_last*/, bool return_macs) {
  constexpr auto kName = "fna_flop_count";
  const int64_t n = pairs(kName, q_shape, kernel_size, dilation, is_causal);
  check_like(kName, "key", k_shape, q_shape, true);
  check_like(kName, "value", v_shape, q_shape, false);
  return counted(kName, n, q_shape.back() + v_shape.back(), return_macs);
}

int64_t na_qk_flop_count(IntArrayRef q_shape, IntArrayRef k_shape, IntArrayRef kernel_size,
                         IntArrayRef dilation, IntArrayRef is_causal, bool /*is_heads_last*/,
                         bool return_macs) {
  constexpr auto kName = "na_qk_flop_count";
  const int64_t n = pairs(kName, q_shape, kernel_size, dilation, is_causal);
  check_like(kName, "key", k_shape, q_shape, true);
  return counted(kName, n, q_shape.back(), return_macs);
}

int64_t na_av_flop_count(IntArrayRef a_shape, IntArrayRef v_shape, IntArrayRef kernel_size,
                         IntArrayRef dilation, IntArrayRef is_causal, bool /*is_heads_last*/,
                         bool return_macs) {
  constexpr auto kName = "na_av_flop_count";
  const int64_t n = pairs(kName, a_shape, kernel_size, dilation, is_causal);
  check_like(kName, "value", v_shape, a_shape, false);
  return counted(kName, n, v_shape.back(), return_macs);
}

}  // namespace halcyon
