// SPDX-License-Identifier: Apache-2.0
// No #pragma once: each instruction set's file includes it once, after simd-inl.h. Products in
// which some pairs are hidden: their weights are 0, but 0 times what is not finite is NaN.

namespace halcyon {
namespace {

// Numbers along the depth of a product that an element holds.
template <class U>
inline constexpr int kNumbersOf = 1;
template <>
inline constexpr int kNumbersOf<Bf16Pair> = 2;

// Whether all of (rows, columns) are; columns a multiple of kLanes.
template <class T>
inline bool are_finite(int64_t rows, int64_t columns, const T* at, int64_t row) {
  Vector<uint64_t> gone{};
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      const auto x = load(at + r * row + c);
      gone |= reinterpret_cast<Vector<uint64_t>>(x - x);  // 0, or NaN
    }
  }
  for (int l = 0; l < kLanes<uint64_t>; ++l) {
    if (gone[l] != 0) return false;
  }
  return true;
}
inline bool are_finite(int64_t rows, int64_t columns, const Bf16Pair* at, int64_t row) {
  uint32_t carries = 0;
  for (int64_t r = 0; r < rows; ++r) {
    // adding the lowest bit of an exponent that is all ones carries into the sign
    for (int64_t c = 0; c < columns; ++c)
      carries |= (at[r * row + c].bits & 0x7f807f80u) + 0x00800080u;
  }
  return (carries & 0x80008000u) == 0;
}

// The numbers h of a vector of elements that are not finite, 0 in the place of others.
template <class T>
inline Vector<T> unfinite(const T* at, int /*h*/) {
  const auto x = load(at);
  return x - x == Vector<T>{} ? Vector<T>{} : x;
}
inline Vector<float> unfinite(const Bf16Pair* at, int h) {
  Vector<float> x;
  for (int l = 0; l < kLanes<float>; ++l)
    x[l] = __builtin_bit_cast(float, h == 0 ? at[l].bits << 16 : at[l].bits & 0xffff0000u);
  return x - x == Vector<float>{} ? Vector<float>{} : x;
}
// The others, 0 in the place of these.
template <class T>
inline void copy_finite(int64_t columns, const T* from, T* to) {
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const auto x = load(from + c);
    store(to + c, x - x == Vector<T>{} ? x : Vector<T>{});
  }
}
inline void copy_finite(int64_t columns, const Bf16Pair* from, Bf16Pair* to) {
  for (int64_t c = 0; c < columns; ++c) {
    const uint32_t bits = from[c].bits, low = (bits & 0x7f80u) == 0x7f80u ? 0 : bits & 0xffffu,
                   high = (bits & 0x7f800000u) == 0x7f800000u ? 0 : bits & 0xffff0000u;
    to[c].bits = low | high;
  }
}

template <class T>
inline T number(T element, int /*h*/) {
  return element;
}
inline float number(Bf16Pair element, int h) {
  return __builtin_bit_cast(float, h == 0 ? element.bits << 16 : element.bits & 0xffff0000u);
}

// product() of A, which is 0 for pairs that are hidden, and B: row m of A meets the number k of the
// depth where seen(m, k), and what B holds elsewhere changes nothing. Sums of what is finite have
// the bits that product() gives them. clean (depth, columns).
template <class U, bool Add, class Seen>
[[gnu::noinline]] void seen_product(int64_t rows, int64_t columns, int64_t depth, const U* a,
                                    int64_t a_row, int64_t a_column, const U* b, int64_t b_row,
                                    Sum<U>* c, int64_t c_row, U* clean, const Seen& seen) {
  using T = Sum<U>;
  for (int64_t k = 0; k < depth; ++k) copy_finite(columns, b + k * b_row, clean + k * columns);
  product<U, Add>(rows, columns, depth, a, a_row, a_column, clean, columns, c, c_row);
  for (int64_t k = 0; k < depth; ++k) {
    if (are_finite(1, columns, b + k * b_row, b_row)) continue;
    for (int h = 0; h < kNumbersOf<U>; ++h) {
      for (int64_t m = 0; m < rows; ++m) {
        if (!seen(m, k * kNumbersOf<U> + h)) continue;
        const T weight = number(a[m * a_row + k * a_column], h);
        for (int64_t j = 0; j < columns; j += kLanes<T>) {
          const auto x = unfinite(b + k * b_row + j, h);
          T* at = c + m * c_row + j;
          store(at, x == Vector<T>{} ? load(at) : load(at) + weight * x);
        }
      }
    }
  }
}

}  // namespace
}  // namespace halcyon
