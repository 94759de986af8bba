// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/finite.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

namespace halcyon {
namespace {

// Numbers of one type in a word of 64 bits: the bits of their exponents, and the lowest of each.
struct Exponents {
  uint64_t all, lowest;
  uint64_t signs() const { return all + lowest; }
};

Exponents exponents_of(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return {0x7ff0'0000'0000'0000, 0x0010'0000'0000'0000};
    case at::kHalf:
      return {0x7c00'7c00'7c00'7c00, 0x0400'0400'0400'0400};
    case at::kBFloat16:
      return {0x7f80'7f80'7f80'7f80, 0x0080'0080'0080'0080};
    default:
      return {0x7f80'0000'7f80'0000, 0x0080'0000'0080'0000};
  }
}

// A number is not finite where all bits of its exponent are set; adding the lowest of them then
// carries into the sign, and never further.
bool are_finite(const Exponents& exponents, const char* at, int64_t bytes) {
  constexpr int64_t kWord = sizeof(uint64_t);
  uint64_t carries = 0;
  const auto look = [&](int64_t offset, int64_t size) {
    uint64_t word = 0;
    std::memcpy(&word, at + offset, static_cast<std::size_t>(size));
    carries |= (word & exponents.all) + exponents.lowest;
  };
  int64_t offset = 0;
  for (; offset + kWord <= bytes; offset += kWord) look(offset, kWord);
  if (offset < bytes) look(offset, bytes - offset);
  return (carries & exponents.signs()) == 0;
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
  const auto exponents = exponents_of(t.scalar_type());
  const auto* const data = static_cast<const char*>(t.const_data_ptr());
  const int64_t bytes = t.element_size();
  constexpr int64_t kShare = 1 << 15;  // numbers
  std::atomic<bool> finite{true};
  const auto look = [&](int64_t offset, int64_t count) {
    if (!are_finite(exponents, data + offset * bytes, count * bytes)) finite = false;
  };
  if (pieces.count == 1) {
    at::parallel_for(0, pieces.length, kShare,
                     [&](int64_t begin, int64_t end) { look(begin, end - begin); });
    return finite;
  }
  const int64_t grain = std::max<int64_t>(kShare / pieces.length, 1);
  at::parallel_for(0, pieces.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end && finite; ++i) look(pieces.offset(i), pieces.length);
  });
  return finite;
}

}  // namespace halcyon
