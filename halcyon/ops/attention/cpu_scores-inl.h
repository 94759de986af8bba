// SPDX-License-Identifier: Apache-2.0
// Part of cpu_kernel-inl.h: what forward and backward do with scores alike.

namespace halcyon::attention_detail {
namespace {

constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

// Scores are kept as q k with the sign of the scale in q, so that the largest is the largest
// weight's; without a scale they are zero, as masked ones must stay minus infinity when multiplied.
template <class T>
inline T sign_of_scale(const Problem<T>& p) {
  return p.scale == 0 ? T(0) : p.scale < 0 ? T(-1) : T(1);
}

// Weights are two to the power of this times the score.
template <class T>
inline T exponent_factor(const Problem<T>& p) {
  const T size = p.scale == 0 ? T(1) : p.scale < 0 ? -p.scale : p.scale;
  return size * static_cast<T>(kLog2E);
}

// Keys of the block at `key` that query i sees, below zero for none.
template <class T>
inline int64_t visible(const Problem<T>& p, int64_t i, int64_t key, int64_t count) {
  return p.causal && i - key + 1 < count ? i - key + 1 : count;
}

template <class T>
inline T largest_lane(Vector<T> x) {
  T largest = x[0];
  for (int l = 1; l < kLanes<T>; ++l) largest = x[l] > largest ? x[l] : largest;
  return largest;
}

// Two vectors of a row of weights, as the left operand of the product with the values.
inline void store_weights(float* to, Vector<float> first, Vector<float> second) {
  store(to, first);
  store(to + kLanes<float>, second);
}
inline void store_weights(double* to, Vector<double> first, Vector<double> second) {
  store(to, first);
  store(to + kLanes<double>, second);
}
#ifdef __AVX512BF16__
inline void store_weights(Bf16Pair* to, Vector<float> first, Vector<float> second) {
  const auto both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
  __builtin_memcpy(to, &both, sizeof(both));
}
#endif

}  // namespace
}  // namespace halcyon::attention_detail
