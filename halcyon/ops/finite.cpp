// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/finite.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace halcyon {
namespace {

// A number is not finite where all bits of its exponent are set; adding the lowest of them then
// carries into the sign.
template <class Bits>
bool are_finite(const Bits* numbers, int64_t count, Bits exponent, Bits lowest) {
  Bits seen = 0;
  for (int64_t i = 0; i < count; ++i) seen |= static_cast<Bits>((numbers[i] & exponent) + lowest);
  return (seen & ~(static_cast<Bits>(~Bits{0}) >> 1)) == 0;
}

bool are_finite(at::ScalarType type, const char* at, int64_t count) {
  switch (type) {
    case at::kDouble:
      return are_finite<uint64_t>(reinterpret_cast<const uint64_t*>(at), count,
                                  0x7ff0'0000'0000'0000u, 0x0010'0000'0000'0000u);
    case at::kHalf:
      return are_finite<uint16_t>(reinterpret_cast<const uint16_t*>(at), count, 0x7c00, 0x0400);
    case at::kBFloat16:
      return are_finite<uint16_t>(reinterpret_cast<const uint16_t*>(at), count, 0x7f80, 0x0080);
    default:
      return are_finite<uint32_t>(reinterpret_cast<const uint32_t*>(at), count, 0x7f80'0000u,
                                  0x0080'0000u);
  }
}

// The memory of a tensor as pieces of numbers that follow each other.
struct Pieces {
  explicit Pieces(const at::Tensor& t) {
    int64_t axis = t.dim();
    if (t.is_non_overlapping_and_dense()) {
      length = t.numel();
      axis = 0;
    }
    for (; axis > 0 && (t.stride(axis - 1) == length || t.size(axis - 1) == 1); --axis)
      length *= t.size(axis - 1);
    sizes = t.sizes().slice(0, static_cast<std::size_t>(axis));
    strides = t.strides().slice(0, static_cast<std::size_t>(axis));
    for (const int64_t size : sizes) count *= size;
  }
  int64_t offset(int64_t piece) const {
    int64_t at = 0;
    for (std::size_t a = sizes.size(); a-- > 0; piece /= sizes[a])
      at += piece % sizes[a] * strides[a];
    return at;
  }

  int64_t length = 1, count = 1;
  at::IntArrayRef sizes, strides;
};

}  // namespace

bool is_readable(const at::Tensor& t) {
  return t.is_cpu() && t.has_storage() && !t.key_set().has(c10::DispatchKey::Python);
}

bool all_finite(const at::Tensor& t) {
  if (t.numel() == 0) return true;
  const Pieces pieces(t);
  const auto* const data = static_cast<const char*>(t.const_data_ptr());
  const int64_t bytes = t.element_size();
  constexpr int64_t kShare = 1 << 15;  // numbers
  std::atomic<bool> finite{true};
  if (pieces.count == 1) {
    at::parallel_for(0, pieces.length, kShare, [&](int64_t begin, int64_t end) {
      if (!are_finite(t.scalar_type(), data + begin * bytes, end - begin)) finite = false;
    });
    return finite;
  }
  const int64_t grain = std::max<int64_t>(kShare / pieces.length, 1);
  at::parallel_for(0, pieces.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end && finite; ++i) {
      if (!are_finite(t.scalar_type(), data + pieces.offset(i) * bytes, pieces.length))
        finite = false;
    }
  });
  return finite;
}

}  // namespace halcyon
