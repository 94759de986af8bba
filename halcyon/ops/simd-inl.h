// SPDX-License-Identifier: Apache-2.0
// No #pragma once: each instruction set's file includes it once, with its own HALCYON_VECTOR_BYTES.
// Everything here has internal linkage and uses nothing of the standard library that would be
// emitted: a function shared with other files could reach a machine that lacks the instructions.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "halcyon/ops/storage.h"

namespace halcyon {
namespace {

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(HALCYON_VECTOR_BYTES)));
  typedef T unaligned
      __attribute__((vector_size(HALCYON_VECTOR_BYTES), aligned(alignof(T)), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
inline constexpr int kLanes = HALCYON_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
inline int64_t padded(int64_t n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// Pieces of one buffer, each on its own cache lines. Without a buffer they are counted only.
template <class T>
class Scratch {
 public:
  explicit Scratch(T* start) : start_(start) {}
  template <class U = T>
  U* take(int64_t count) {
    T* piece = start_ ? start_ + used_ : nullptr;
    constexpr int64_t kLine = 64;
    used_ += (count * static_cast<int64_t>(sizeof(U)) + kLine - 1) / kLine *
             (kLine / static_cast<int64_t>(sizeof(T)));
    return reinterpret_cast<U*>(piece);
  }
  int64_t used() const { return used_; }

 private:
  T* start_;
  int64_t used_ = 0;
};

inline Vector<float> load(const float* p) {
  return *reinterpret_cast<const VectorOf<float>::unaligned*>(p);
}
inline Vector<double> load(const double* p) {
  return *reinterpret_cast<const VectorOf<double>::unaligned*>(p);
}
inline Vector<float> load(const Bf16* p) {
  typedef uint16_t Half
      __attribute__((vector_size(HALCYON_VECTOR_BYTES / 2), aligned(2), may_alias));
  const auto bits = __builtin_convertvector(*reinterpret_cast<const Half*>(p), Vector<uint32_t>);
  return reinterpret_cast<Vector<float>>(bits << 16);
}
template <class T>
inline void store(T* p, Vector<T> x) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(p) = x;
}
// Rounds to the nearest, ties to even; a NaN stays one.
inline void store(Bf16* p, Vector<float> x) {
  typedef uint16_t Half
      __attribute__((vector_size(HALCYON_VECTOR_BYTES / 2), aligned(2), may_alias));
  const auto bits = reinterpret_cast<Vector<uint32_t>>(x);
  const auto rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const auto is_nan = reinterpret_cast<Vector<uint32_t>>(x != x);
  *reinterpret_cast<Half*>(p) =
      __builtin_convertvector((rounded & ~is_nan) | (0x7fc0u & is_nan), Half);
}

inline float get(const float* p) {
  return *p;
}
inline double get(const double* p) {
  return *p;
}
inline float get(const Bf16* p) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(p->bits) << 16);
}
inline void put(float* p, float x) {
  *p = x;
}
inline void put(double* p, double x) {
  *p = x;
}
inline void put(Bf16* p, float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  p->bits = x != x ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline Vector<float> load(const Bf16Pair* p) {
  return load(reinterpret_cast<const float*>(p));
}

// x within [low, high]; a NaN stays one.
inline Vector<float> clamped(Vector<float> x, float low, float high) {
#if HALCYON_VECTOR_BYTES == 64
  // masked, as g++ 12 warns of what the unmasked ones leave undefined
  const auto above = _mm512_maskz_max_ps(0xffff, _mm512_set1_ps(low), (__m512)x);
  return (Vector<float>)_mm512_maskz_min_ps(0xffff, _mm512_set1_ps(high), above);
#elif HALCYON_VECTOR_BYTES == 32
  return (Vector<float>)_mm256_min_ps(_mm256_set1_ps(high),
                                      _mm256_max_ps(_mm256_set1_ps(low), (__m256)x));
#else
  x = x < low ? Vector<float>{} + low : x;
  return x > high ? Vector<float>{} + high : x;
#endif
}

// e^x to 2 ulp by a polynomial on [-ln 2 / 2, ln 2 / 2]; below -87.3 the result stays at 1.2e-38.
inline Vector<float> exponential(Vector<float> x) {
  x = clamped(x, -87.3f, 88.3f);
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
  const auto shifted = x * 1.44269504f + kShift;
  const auto n = shifted - kShift;
  const auto r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  auto y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const auto exponent = reinterpret_cast<Vector<int32_t>>(shifted) << 23;
  return reinterpret_cast<Vector<float>>(reinterpret_cast<Vector<int32_t>>(y) + exponent);
}
inline Vector<double> exponential(Vector<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

// 2^x to 1 ulp, 0 below the smallest normal number, infinity above the largest (from 2^127.4 on).
inline Vector<float> power_of_two(Vector<float> x) {
#if HALCYON_VECTOR_BYTES == 64
  const auto n = (Vector<float>)_mm512_maskz_roundscale_ps(0xffff, (__m512)x, 0);
  const auto r = x - n;
  auto y = r * 0.000153473201f + 0.00134001545f;  // minimax of the relative error, 2e-9
  y = y * r + 0.00961848424f;
  y = y * r + 0.0555032808f;
  y = y * r + 0.240226469f;
  y = y * r + 0.693147206f;
  y = y * r + 1.0f;
  const auto normal = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  return (Vector<float>)_mm512_maskz_scalef_ps(normal, (__m512)y, (__m512)n);
#else
  const auto y = exponential(x * 0.693147181f);
  const auto finite = x < 127.4f ? y : x + __builtin_inff();
  return x < -126.0f ? Vector<float>{} : finite;
#endif
}
inline Vector<double> power_of_two(Vector<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp2(x[i]);
  return x;
}

// 1 / x to 1 ulp or so where the processor has an estimate; 0 for |x| above 2^126 in AVX2.
inline Vector<float> reciprocal(Vector<float> x) {
#if HALCYON_VECTOR_BYTES == 64
  const auto y = (Vector<float>)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
  return y * (2.0f - x * y);
#elif HALCYON_VECTOR_BYTES == 32
  const auto y = (Vector<float>)_mm256_rcp_ps((__m256)x);
  return y * (2.0f - x * y);
#else
  return 1.0f / x;
#endif
}
inline Vector<double> reciprocal(Vector<double> x) {
  return 1.0 / x;
}

template <class T>
inline Vector<T> larger(Vector<T> a, Vector<T> b) {
  return b > a ? b : a;
}

// Lane l of the result is x[index[l]].
template <class T, class Index>
inline Vector<T> permute(Vector<T> x, Index index) {
#ifdef __clang__
  Vector<T> y;
  for (int l = 0; l < kLanes<T>; ++l) y[l] = x[index[l]];
  return y;
#else
  return __builtin_shuffle(x, index);
#endif
}

// (x0, x1, x2, x3, ...) -> (x1, x0, x3, x2, ...)
template <class T, std::size_t... L>
inline Vector<T> swap_pairs(Vector<T> x, std::index_sequence<L...>) {
  return __builtin_shufflevector(x, x, (L ^ 1)...);
}
template <class T>
inline Vector<T> swap_pairs(Vector<T> x) {
  return swap_pairs<T>(x, std::make_index_sequence<kLanes<T>>());
}

template <class T, int Half, std::size_t... L>
inline Vector<T> add_halves(Vector<T> x, std::index_sequence<L...>) {
  return x + __builtin_shufflevector(x, x, (L ^ Half)...);
}
template <class T, int Half = kLanes<T> / 2>
inline T sum_lanes(Vector<T> x) {
  if constexpr (Half == 0) {
    return x[0];
  } else {
    return sum_lanes<T, Half / 2>(add_halves<T, Half>(x, std::make_index_sequence<kLanes<T>>()));
  }
}

// One stage of the square transposition: swaps the off-diagonal blocks of Step x Step.
template <class T, int Step, std::size_t... L>
inline void exchange(Vector<T>& a, Vector<T>& b, std::index_sequence<L...>) {
  constexpr int kN = kLanes<T>;
  const auto low = __builtin_shufflevector(a, b, ((L & Step) ? kN + L - Step : L)...);
  b = __builtin_shufflevector(a, b, ((L & Step) ? kN + L : L + Step)...);
  a = low;
}
// Lane r of the result is the sum of the lanes of rows[r], of which there are kLanes; they are
// overwritten.
template <class T, int Step = 1>
inline Vector<T> sums_of_rows(Vector<T>* rows) {
  if constexpr (Step == kLanes<T>) {
    return rows[0];
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < kLanes<T> / (2 * Step); ++i) {
      auto a = rows[2 * i], b = rows[2 * i + 1];
      exchange<T, Step>(a, b, std::make_index_sequence<kLanes<T>>());
      rows[i] = a + b;
    }
    return sums_of_rows<T, 2 * Step>(rows);
  }
}
template <class T, int Step>
inline void transpose_stages(Vector<T>* rows) {
  if constexpr (Step < kLanes<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if ((i & Step) == 0)
        exchange<T, Step>(rows[i], rows[i + Step], std::make_index_sequence<kLanes<T>>());
    }
    transpose_stages<T, Step * 2>(rows);
  }
}

// to (columns, rows) = from (rows, columns)^T, converting between storage and T. Strides in
// elements.
template <class T, class From, class To>
void transpose(int64_t rows, int64_t columns, const From* from, int64_t from_stride, To* to,
               int64_t to_stride) {
  constexpr int kN = kLanes<T>;
  const int64_t full_rows = rows / kN * kN, full_columns = columns / kN * kN;
  for (int64_t r = 0; r < full_rows; r += kN) {
    for (int64_t c = 0; c < full_columns; c += kN) {
      Vector<T> tile[kN];
#pragma GCC unroll 16
      for (int i = 0; i < kN; ++i) tile[i] = load(from + (r + i) * from_stride + c);
      transpose_stages<T, 1>(tile);
#pragma GCC unroll 16
      for (int i = 0; i < kN; ++i) store(to + (c + i) * to_stride + r, tile[i]);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = r < full_rows ? full_columns : 0; c < columns; ++c)
      put(to + c * to_stride + r, get(from + r * from_stride + c));
  }
}

// What products of these elements are summed in.
template <class U>
struct SumOf {
  using type = U;
};
template <>
struct SumOf<Bf16Pair> {
  using type = float;
};
template <class U>
using Sum = typename SumOf<U>::type;

// sum + left * right, left the same in all lanes.
template <class T>
inline Vector<T> multiply_add(Vector<T> sum, T left, Vector<T> right) {
  return sum + left * right;
}
#ifdef __AVX512BF16__
inline Vector<float> multiply_add(Vector<float> sum, Bf16Pair left, Vector<float> right) {
  const auto pair = (__m512bh)_mm512_set1_epi32(static_cast<int>(left.bits));
  return (Vector<float>)_mm512_dpbf16_ps((__m512)sum, pair, (__m512bh)right);
}
#endif

// C (Rows, Columns vectors) = or += A B; A[m][k] = a[m * a_row + k * a_column]. Elements of A and B
// may be pairs of bfloat16 along the depth.
template <class U, int Rows, int Columns, bool Add>
inline void product_tile(int64_t depth, const U* a, int64_t a_row, int64_t a_column, const U* b,
                         int64_t b_row, Sum<U>* c, int64_t c_row) {
  using T = Sum<U>;
  constexpr int kN = kLanes<T>;
  Vector<T> sum[Rows][Columns] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vector<T> right[Columns];
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) right[j] = load(b + k * b_row + j * kN);
#pragma GCC unroll 24
    for (int i = 0; i < Rows; ++i) {
      const U left = a[i * a_row + k * a_column];
#pragma GCC unroll 4
      for (int j = 0; j < Columns; ++j) sum[i][j] = multiply_add(sum[i][j], left, right[j]);
    }
  }
#pragma GCC unroll 24
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) {
      T* at = c + i * c_row + j * kN;
      store(at, Add ? load(at) + sum[i][j] : sum[i][j]);
    }
  }
}

// The next height of a tile below Rows, for rows that are left over: few steps, so that what is
// left is not worked on with a handful of accumulators.
constexpr int lower_tile(int rows) {
  return rows > 16 ? 16 : rows > 12 ? 12 : rows > 8 ? 8 : rows > 6 ? 6 : rows > 4 ? 4 : rows - 1;
}

template <class U, int Rows, int Columns, bool Add>
inline void product_rows(int64_t rows, int64_t depth, const U* a, int64_t a_row, int64_t a_column,
                         const U* b, int64_t b_row, Sum<U>* c, int64_t c_row) {
  for (; rows >= Rows; rows -= Rows, a += Rows * a_row, c += Rows * c_row)
    product_tile<U, Rows, Columns, Add>(depth, a, a_row, a_column, b, b_row, c, c_row);
  if constexpr (Rows > 1) {
    if (rows > 0)
      product_rows<U, lower_tile(Rows), Columns, Add>(rows, depth, a, a_row, a_column, b, b_row, c,
                                                      c_row);
  }
}

// C (rows, columns) = or += A (rows, depth) B (depth, columns); columns a multiple of kLanes. Sums
// run in the order of k in every tile, so an element does not depend on the shape around it.
template <class U, bool Add>
void product(int64_t rows, int64_t columns, int64_t depth, const U* a, int64_t a_row,
             int64_t a_column, const U* b, int64_t b_row, Sum<U>* c, int64_t c_row) {
  constexpr int kN = kLanes<Sum<U>>;
  constexpr int kTile = HALCYON_VECTOR_BYTES == 64 ? 24 : 8;  // accumulators that fit the registers
  for (int64_t j = 0; j < columns;) {
    const int64_t left = (columns - j) / kN;
    if (left >= 4) {
      product_rows<U, kTile / 4, 4, Add>(rows, depth, a, a_row, a_column, b + j, b_row, c + j,
                                         c_row);
      j += 4 * kN;
    } else if (left >= 2) {
      product_rows<U, kTile / 2, 2, Add>(rows, depth, a, a_row, a_column, b + j, b_row, c + j,
                                         c_row);
      j += 2 * kN;
    } else {
      product_rows<U, kTile, 1, Add>(rows, depth, a, a_row, a_column, b + j, b_row, c + j, c_row);
      j += kN;
    }
  }
}

}  // namespace
}  // namespace halcyon
