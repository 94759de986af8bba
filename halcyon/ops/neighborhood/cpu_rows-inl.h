// SPDX-License-Identifier: Apache-2.0
// No #pragma once: each instruction set's file includes it once, after cpu_products-inl.h. The
// products of a tile whose result or second factor are rows of channels, lane by lane: a weight is
// one number, broadcast, so that nothing is transposed and every read is aligned.
#include "halcyon/ops/neighborhood/cpu_kernel.h"

namespace halcyon::neighborhood {
namespace {

// Reads once, into a register: the compiler would read again for every use.
template <class T>
[[gnu::always_inline]] inline Vector<T> load_once(const T* p) {
  auto x = load(p);
#if defined(__x86_64__)
  asm("" : "+v"(x));
#endif
  return x;
}

// Lanes at a time, so that there are enough sums to hide the latency of one.
template <int kChannels>
inline constexpr int kTogether = kChannels >= 4   ? 1
                                 : kChannels == 2 ? 2
                                                  : 4;

// What the lanes lane, ... of a run meet: weights by vector of the run, the first row of each lane.
template <class T, class Data, int kL>
struct LaneRun {
  const T* weights[kMaxVectors];
  Data* rows[kL];
  int64_t n_rows, row_pitch, n, shifts, pitch;

  LaneRun(const Tile& tile, const Run& run, int lane, const T* s, RowBox<Data> box)
      : n_rows(run.rows),
        row_pitch(box.width * box.pitch),
        n(run.shifts),
        shifts(run.shifts),
        pitch(box.pitch) {
    for (int v = 0; v < run.vectors; ++v) weights[v] = s + first_score<T>(tile, run, v) + lane;
    for (int l = 0; l < kL; ++l)
      rows[l] =
          box.data + (run.row * box.width + run.element + tile.lanes.at[lane + l]) * box.pitch;
    if (tile.lanes.ragged) {
      const int64_t left = tile.lanes.count[lane] - run.shift;
      n = left < 0 ? 0 : left < n ? left : n;
    }
  }
};

template <int kFirst, int kCount, class T, int kL, int kC>
[[gnu::always_inline]] inline void weigh_run(LaneRun<T, const T, kL> at,
                                             Vector<T> (&sum)[kL][kMaxVectors][kC]) {
  constexpr int kN = kLanes<T>;
  for (int64_t row = 0; row < at.n_rows; ++row) {
    for (int64_t j = 0; j < at.n; ++j) {
      const int64_t slot = (row * at.shifts + j) * kN;
#pragma GCC unroll 4
      for (int l = 0; l < kL; ++l) {
        Vector<T> right[kC];
#pragma GCC unroll 4
        for (int c = 0; c < kC; ++c)
          right[c] = load(at.rows[l] + row * at.row_pitch + j * at.pitch + c * kN);
#pragma GCC unroll 4
        for (int v = 0; v < kCount; ++v) {
          const T weight = at.weights[v][slot + l];
#pragma GCC unroll 4
          for (int c = 0; c < kC; ++c) sum[l][kFirst + v][c] += weight * right[c];
        }
      }
    }
  }
}

template <int kFirst, int kCount, class T, int kC>
[[gnu::always_inline]] inline void spread_run(LaneRun<T, T, 1> at,
                                              const Vector<T> (&left)[kMaxVectors][kC]) {
  constexpr int kN = kLanes<T>;
  for (int64_t row = 0; row < at.n_rows; ++row) {
    for (int64_t j = 0; j < at.n; ++j) {
      T* to = at.rows[0] + row * at.row_pitch + j * at.pitch;
      const int64_t slot = (row * at.shifts + j) * kN;
      Vector<T> sum[kC];
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) sum[c] = load(to + c * kN);
#pragma GCC unroll 4
      for (int v = 0; v < kCount; ++v) {
        const T weight = at.weights[v][slot];
#pragma GCC unroll 4
        for (int c = 0; c < kC; ++c) sum[c] += weight * left[kFirst + v][c];
      }
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) store(to + c * kN, sum[c]);
    }
  }
}

// function<first, count>(arguments) for the vectors that the run is for: a switch whose cases are
// inlined, as the sums would leave the registers in a call.
#define HALCYON_OF_VECTORS(run, function, ...)                    \
  switch ((run).first_vector * kMaxVectors + (run).vectors - 1) { \
    case 0:                                                       \
      function<0, 1>(__VA_ARGS__);                                \
      break;                                                      \
    case 1:                                                       \
      function<0, 2>(__VA_ARGS__);                                \
      break;                                                      \
    case 2:                                                       \
      function<0, 3>(__VA_ARGS__);                                \
      break;                                                      \
    case 3:                                                       \
      function<0, 4>(__VA_ARGS__);                                \
      break;                                                      \
    case 4:                                                       \
      function<1, 1>(__VA_ARGS__);                                \
      break;                                                      \
    case 5:                                                       \
      function<1, 2>(__VA_ARGS__);                                \
      break;                                                      \
    case 6:                                                       \
      function<1, 3>(__VA_ARGS__);                                \
      break;                                                      \
    case 8:                                                       \
      function<2, 1>(__VA_ARGS__);                                \
      break;                                                      \
    case 9:                                                       \
      function<2, 2>(__VA_ARGS__);                                \
      break;                                                      \
    case 12:                                                      \
      function<3, 1>(__VA_ARGS__);                                \
      break;                                                      \
    default: /* no other pair of vectors and of runs is made */   \
      break;                                                      \
  }

template <class T, int kC, int kL>
inline void weigh_lanes(const Tile& tile, int lane, const T* s, RowBox<const T> box, T* out) {
  constexpr int kN = kLanes<T>;
  Vector<T> sum[kL][kMaxVectors][kC] = {};
  for (const Run* run = tile.runs; run != tile.runs + tile.n_runs; ++run) {
    const LaneRun<T, const T, kL> at(tile, *run, lane, s, box);
    HALCYON_OF_VECTORS(*run, weigh_run, at, sum)
  }
#pragma GCC unroll 4
  for (int l = 0; l < kL; ++l) {
#pragma GCC unroll 4
    for (int v = 0; v < kMaxVectors; ++v) {
      if (v >= tile.vectors) break;
      T* to = out + (v * kN + lane + l) * box.pitch;
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) store(to + c * kN, load(to + c * kN) + sum[l][v][c]);
    }
  }
}

template <class T, int kC>
inline void spread_lane(const Tile& tile, int lane, const T* s, const T* rows, RowBox<T> box) {
  constexpr int kN = kLanes<T>;
  Vector<T> left[kMaxVectors][kC] = {};
#pragma GCC unroll 4
  for (int v = 0; v < kMaxVectors; ++v) {
    if (v >= tile.vectors) break;
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c)
      left[v][c] = load_once(rows + (v * kN + lane) * box.pitch + c * kN);
  }
  for (const Run* run = tile.runs; run != tile.runs + tile.n_runs; ++run) {
    const LaneRun<T, T, 1> at(tile, *run, lane, s, box);
    HALCYON_OF_VECTORS(*run, spread_run, at, left)
  }
}
#undef HALCYON_OF_VECTORS

// f.operator()<vectors>(first channel), the widths that the registers hold.
template <class T, class F>
inline void each_width(int64_t pitch, const F& f) {
  constexpr int kN = kLanes<T>, kMost = HALCYON_VECTOR_BYTES == 64 ? 4 : 2;
  int64_t c = 0;
  if constexpr (kMost == 4) {
    for (; c + 4 * kN <= pitch; c += 4 * kN) f.template operator()<4>(c);
  }
  for (; c + 2 * kN <= pitch; c += 2 * kN) f.template operator()<2>(c);
  for (; c + kN <= pitch; c += kN) f.template operator()<1>(c);
}

template <class T>
void weigh(const Tile& tile, int64_t valid, const T* s, RowBox<const T> box, T* out) {
  each_width<T>(box.pitch, [&]<int kC>(int64_t c) {
    // on narrow registers two or four lanes' sums do not fit
    constexpr int kL = HALCYON_VECTOR_BYTES == 64 ? kTogether<kC> : 1;
    const RowBox<const T> part{box.data + c, box.width, box.pitch};
    int lane = 0;
    // lanes of unequal counts go by themselves
    for (; !tile.lanes.ragged && lane + kL <= valid; lane += kL)
      weigh_lanes<T, kC, kL>(tile, lane, s, part, out + c);
    for (; lane < valid; ++lane) weigh_lanes<T, kC, 1>(tile, lane, s, part, out + c);
  });
}

template <class T>
void spread(const Tile& tile, int64_t valid, const T* s, const T* rows, RowBox<T> box) {
  each_width<T>(box.pitch, [&]<int kC>(int64_t c) {
    for (int lane = 0; lane < valid; ++lane)
      spread_lane<T, kC>(tile, lane, s, rows + c, {box.data + c, box.width, box.pitch});
  });
}

template <class S, class T>
void gather(int64_t count, int64_t depth, const S* from, const int64_t* offset, T scale, T* to,
            int64_t pitch) {
  constexpr int kN = kLanes<T>;
  const int64_t full = depth / kN * kN;
  for (int64_t i = 0; i < count; ++i, to += pitch) {
    const S* row = from + offset[i];
    for (int64_t c = 0; c < full; c += kN) store(to + c, load(row + c) * scale);
    for (int64_t c = full; c < depth; ++c) to[c] = get(row + c) * scale;
    for (int64_t c = depth; c < pitch; ++c) to[c] = T(0);
  }
}

template <class S, class T>
void scatter(int64_t count, int64_t depth, const T* from, int64_t pitch, const T* factor, S* to,
             const int64_t* offset) {
  constexpr int kN = kLanes<T>;
  const int64_t full = depth / kN * kN;
  for (int64_t i = 0; i < count; ++i, from += pitch) {
    S* row = to + offset[i];
    for (int64_t c = 0; c < full; c += kN) store(row + c, load(from + c) * factor[i]);
    for (int64_t c = full; c < depth; ++c) put(row + c, from[c] * factor[i]);
  }
}

template <class S, class T>
void dots(int64_t count, int64_t depth, const S* a, const S* b, T* to) {
  constexpr int kN = kLanes<T>;
  const int64_t full = depth / kN * kN;
  for (int64_t i = 0; i < count; ++i, a += depth, b += depth) {
    Vector<T> sums{};
    for (int64_t c = 0; c < full; c += kN) sums += load(a + c) * load(b + c);
    T sum = sum_lanes<T>(sums);
    for (int64_t c = full; c < depth; ++c) sum += get(a + c) * get(b + c);
    to[i] = sum;
  }
}

}  // namespace
}  // namespace halcyon::neighborhood
