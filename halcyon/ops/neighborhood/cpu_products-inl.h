// SPDX-License-Identifier: Apache-2.0
// No #pragma once: each instruction set's file includes it once, after simd-inl.h. The product of
// a tile that wants transposed sources: scores = vectors . box.
#include "halcyon/ops/neighborhood/cpu_kernel.h"

namespace halcyon::neighborhood {
namespace {

template <class T>
struct IndexOf;
template <>
struct IndexOf<float> {
  using type = int32_t;
};
template <>
struct IndexOf<double> {
  using type = int64_t;
};
template <class T>
using IndexVector = Vector<typename IndexOf<T>::type>;

template <class T>
inline IndexVector<T> indices(const int32_t* at) {
  IndexVector<T> index;
  for (int l = 0; l < kLanes<T>; ++l) index[l] = at[l];
  return index;
}

// Lane l of read(p) is p[at[l]].
template <class T>
struct DirectReader {
  explicit DirectReader(const Lanes& /*lanes*/) {}
  Vector<T> operator()(const T* p) const { return load(p); }
};
template <class T>
struct PermutedReader {
  explicit PermutedReader(const Lanes& lanes) : index(indices<T>(lanes.at)) {}
  Vector<T> operator()(const T* p) const { return permute<T>(load(p), index); }
  IndexVector<T> index;
};
template <class T>
struct ScatteredReader {
  explicit ScatteredReader(const Lanes& lanes) : at(lanes.at) {}
  Vector<T> operator()(const T* p) const {
    Vector<T> x;
    for (int l = 0; l < kLanes<T>; ++l) x[l] = p[at[l]];
    return x;
  }
  const int32_t* at;
};

template <class T, class F>
inline void with_reader(const Lanes& lanes, const F& f) {
  if (lanes.mode == Lanes::direct) return f(DirectReader<T>(lanes));
  if (lanes.mode == Lanes::permuted) return f(PermutedReader<T>(lanes));
  f(ScatteredReader<T>(lanes));
}

// Offset of the first score of the run's v-th vector.
template <class T>
inline int64_t first_score(const Tile& tile, const Run& run, int v) {
  const int vector = run.first_vector + v;
  return (vector * tile.capacity + run.slot[vector]) * kLanes<T>;
}

// Accumulators in registers, which leave some for the operands.
inline constexpr int kAccumulators = HALCYON_VECTOR_BYTES == 64 ? 24 : 12;
template <int kVectors>
inline constexpr int kColumns = kAccumulators / kVectors < 8 ? kAccumulators / kVectors : 8;

// Calls f.template operator()<n>() with the n <= kMost that is wanted.
template <int kMost, class F>
inline void with_count(int64_t wanted, const F& f) {
  if constexpr (kMost > 1) {
    if (wanted < kMost) return with_count<kMost - 1>(wanted, f);
  }
  f.template operator()<kMost>();
}

// Cuts n columns into as few chunks as fit the registers, as even as possible (7 into 4 + 3, not
// 6 + 1, which would wait for its one accumulator) and calls f.operator()<width>(begin).
template <int kVectors, class F>
inline void each_chunk(int64_t n, const F& f) {
  constexpr int kMost = kColumns<kVectors>;
  const int64_t chunks = (n + kMost - 1) / kMost;
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t begin = n * i / chunks, end = n * (i + 1) / chunks;
    with_count<kMost>(end - begin, [&]<int kWidth>() { f.template operator()<kWidth>(begin); });
  }
}

template <class T, int kVectors, int kShifts, class Read>
inline void score_tile(const Read& read, const T* a, const T* box, int64_t depth, int64_t pitch,
                       T* const* scores, int64_t at) {
  constexpr int kN = kLanes<T>;
  Vector<T> sum[kVectors][kShifts] = {};
  for (int64_t c = 0; c < depth; ++c) {
    Vector<T> left[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) left[v] = load(a + (v * depth + c) * kN);
#pragma GCC unroll 8
    for (int j = 0; j < kShifts; ++j) {
      const auto right = read(box + c * pitch + j);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[v][j] += left[v] * right;
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
    for (int j = 0; j < kShifts; ++j) store(scores[v] + at + j * kN, sum[v][j]);
  }
}

template <class T, int kVectors, class Read>
void score_run(const Read& read, const Tile& tile, const Run& run, const T* a, PackedBox<T> box,
               T* scores) {
  T* s[kVectors];
  for (int v = 0; v < kVectors; ++v) s[v] = scores + first_score<T>(tile, run, v);
  for (int64_t row = 0; row < run.rows; ++row) {
    const T* from = box.data + (run.row + row) * box.depth * box.pitch + run.element;
    each_chunk<kVectors>(run.shifts, [&]<int kShifts>(int64_t begin) {
      score_tile<T, kVectors, kShifts>(read, a, from + begin, box.depth, box.pitch, s,
                                       (row * run.shifts + begin) * kLanes<T>);
    });
  }
}

// s (vectors, capacity, lanes) = a (vectors, depth, lanes) . box
template <class T>
void products(const Tile& tile, const T* a, PackedBox<T> box, T* s) {
  with_reader<T>(tile.lanes, [&](const auto& read) {
    for (const Run* run = tile.runs; run != tile.runs + tile.n_runs; ++run) {
      with_count<kMaxVectors>(run->vectors, [&]<int kVectors>() {
        score_run<T, kVectors>(read, tile, *run, a + run->first_vector * box.depth * kLanes<T>, box,
                               s);
      });
    }
  });
}

}  // namespace
}  // namespace halcyon::neighborhood
