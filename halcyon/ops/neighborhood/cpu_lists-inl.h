// SPDX-License-Identifier: Apache-2.0
// No #pragma once: each instruction set's file includes it once, after simd-inl.h. A block of
// kBlock targets that meet a list of sources: scores are (sources, kBlock), targets in the lanes.
#include "halcyon/ops/neighborhood/cpu_kernel.h"

namespace halcyon::neighborhood {
namespace {

template <class T>
void list_scores(int64_t n, int64_t depth, int64_t pitch, const T* rows, const T* lanes,
                 const uint16_t* seen_by, T* s) {
  product<T, false>(n, kListLanes, depth, rows, pitch, 1, lanes, kListLanes, s, kListLanes);
  if (seen_by == nullptr) return;
  for (int v = 0; v < kListLanes; v += kLanes<T>) {
    IndexVector<T> bit{};
    for (int l = 0; l < kLanes<T>; ++l) bit[l] = typename IndexOf<T>::type{1} << (v + l);
    for (int64_t i = 0; i < n; ++i) {
      const auto seen = (IndexVector<T>{} + seen_by[i]) & bit;
      T* at = s + i * kListLanes + v;
      store(at, seen != IndexVector<T>{} ? load(at) : smallest<T>());
    }
  }
}

template <class T>
void list_soften(int64_t n, int64_t pitch, T* s, T* max, T* sum, T* out) {
  for (int v = 0; v < kListLanes; v += kLanes<T>) {
    const auto shrink = soften_lanes<T>(n, kListLanes, s + v, max + v, sum + v);
    scale_rows<T>(shrink, pitch, out + v * pitch);
  }
}

// A lane's weights are broadcast, as in cpu_rows-inl.h.
template <class T>
void list_weigh(int64_t n, int64_t pitch, const T* s, const T* rows, T* out) {
  product<T, true>(kListLanes, pitch, n, s, 1, kListLanes, rows, pitch, out, pitch);
}

template <class T>
void list_weigh_seen(int64_t n, int64_t pitch, const T* s, const T* rows, const uint16_t* seen_by,
                     T* out, T* clean) {
  if (are_finite(n, pitch, rows, pitch)) return list_weigh(n, pitch, s, rows, out);
  seen_product<T, true>(kListLanes, pitch, n, s, 1, kListLanes, rows, pitch, out, pitch, clean,
                        [&](int64_t l, int64_t i) { return (seen_by[i] >> l & 1) != 0; });
}

// lse and delta of source i at [i * row] in lane l at [l * lane]: of the targets (0, 1) or of the
// sources (1, 0).
template <class T, bool kOfTargets>
void list_gradient(int64_t n, const T* lse, const T* delta, T* s, T* dp) {
  for (int v = 0; v < kListLanes; v += kLanes<T>) {
    for (int64_t i = 0; i < n; ++i) {
      const auto log_sum = kOfTargets ? load(lse + v) : Vector<T>{} + lse[i];
      const auto mean = kOfTargets ? load(delta + v) : Vector<T>{} + delta[i];
      const int64_t at = i * kListLanes + v;
      const auto score = load(s + at), p = weight<T>(score, log_sum);
      store(s + at, p);
      const auto slope = p * (load(dp + at) - mean);
      store(dp + at, score == smallest<T>() ? Vector<T>{} : slope);
    }
  }
}

template <class T>
ListKernel<T> make_list_kernel() {
  return {list_scores<T>,     list_soften<T>,         list_weigh<T>,
          list_weigh_seen<T>, list_gradient<T, true>, list_gradient<T, false>};
}

}  // namespace
}  // namespace halcyon::neighborhood
