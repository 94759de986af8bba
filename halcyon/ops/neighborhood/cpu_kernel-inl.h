// SPDX-License-Identifier: Apache-2.0
// No #pragma once: each instruction set's file includes it once.
#include "halcyon/ops/simd-inl.h"
// keeps its place: the products are written in simd-inl.h's vectors
#include "halcyon/ops/neighborhood/cpu_products-inl.h"
// after it: it shares what finds a run's scores
#include "halcyon/ops/neighborhood/cpu_rows-inl.h"

namespace halcyon::neighborhood {
namespace {

// For each score vector of the tile: f(vector of the tile, offset of the scores, row of the box,
// element in it, shift, index into the bias table but for the lane's part).
template <class T, class F>
inline void each_score(const Tile& tile, const F& f) {
  for (const Run* run = tile.runs; run != tile.runs + tile.n_runs; ++run) {
    for (int v = 0; v < run->vectors; ++v) {
      const int vector = run->first_vector + v;
      int64_t at = first_score<T>(tile, *run, v);
      for (int64_t row = 0; row < run->rows; ++row) {
        for (int64_t j = 0; j < run->shifts; ++j, at += kLanes<T>)
          f(vector, at, run->row + row, run->element + j, run->shift + j,
            run->bias[vector] + row * tile.bias_row + j * tile.bias_step);
      }
    }
  }
}

template <class T>
inline Vector<T> smallest() {
  return Vector<T>{} - static_cast<T>(__builtin_inf());
}

template <class T>
void add_bias(const Tile& tile, const T* table, T* s) {
  each_score<T>(tile, [&](int, int64_t at, int64_t, int64_t, int64_t shift, int64_t index) {
    Vector<T> bias{};
    for (int l = 0; l < kLanes<T>; ++l) {
      // a lane without such a shift might point beyond the table
      if (shift < tile.lanes.count[l]) bias[l] = table[index + tile.lanes.bias[l]];
    }
    store(s + at, load(s + at) + bias);
  });
}

template <class T>
void mask(const Tile& tile, T* s) {
  const auto count = indices<T>(tile.lanes.count);
  each_score<T>(tile, [&](int, int64_t at, int64_t, int64_t, int64_t shift, int64_t) {
    const auto inside = count > IndexVector<T>{} + static_cast<typename IndexOf<T>::type>(shift);
    store(s + at, inside ? load(s + at) : smallest<T>());
  });
}

template <class T>
void scores(const Tile& tile, const T* a, PackedBox<T> box, const T* bias_table, T* s) {
  products(tile, a, box, s);
  if (bias_table != nullptr) add_bias(tile, bias_table, s);
  if (tile.lanes.ragged) mask(tile, s);
}

// e^(x - from), 0 where x is -infinity.
template <class T>
inline Vector<T> weight(Vector<T> x, Vector<T> from) {
  return x == smallest<T>() ? Vector<T>{} : exponential(x - from);
}

// A step of the online softmax over n scores of one vector's lanes, `stride` apart. Returns what
// earlier sums shrink by.
template <class T>
inline Vector<T> soften_lanes(int64_t n, int64_t stride, T* s, T* max, T* sum) {
  const auto before = load(max);
  auto top = before;
  for (int64_t i = 0; i < n; ++i) top = larger<T>(top, load(s + i * stride));
  Vector<T> total{};
  for (int64_t i = 0; i < n; ++i) {
    const auto w = weight<T>(load(s + i * stride), top);
    store(s + i * stride, w);
    total += w;
  }
  const auto shrink = weight<T>(before, top);
  store(max, top);
  store(sum, load(sum) * shrink + total);
  return shrink;
}

// out (lanes, pitch), each row by its lane's factor.
template <class T>
inline void scale_rows(Vector<T> factor, int64_t pitch, T* out) {
  for (int l = 0; l < kLanes<T>; ++l) {
    for (const T* end = out + pitch; out != end; out += kLanes<T>)
      store(out, load(out) * factor[l]);
  }
}

template <class T>
void soften(const Tile& tile, int64_t pitch, T* s, T* max, T* sum, T* out) {
  constexpr int kN = kLanes<T>;
  for (int v = 0; v < tile.vectors; ++v) {
    const auto shrink =
        soften_lanes<T>(tile.slots[v], kN, s + v * tile.capacity * kN, max + v * kN, sum + v * kN);
    if (tile.continued) scale_rows<T>(shrink, pitch, out + v * kN * pitch);
  }
}

template <class T>
void query_gradient(const Tile& tile, const T* lse, const T* delta, T* s, T* dp) {
  constexpr int kN = kLanes<T>;
  for (int v = 0; v < tile.vectors; ++v) {
    const auto log_sum = load(lse + v * kN), mean = load(delta + v * kN);
    const int64_t first = v * tile.capacity * kN;
    for (int64_t at = first; at < first + tile.slots[v] * kN; at += kN) {
      const auto p = weight<T>(load(s + at), log_sum);
      store(s + at, p);
      store(dp + at, p * (load(dp + at) - mean));
    }
  }
}

template <class T>
void bias_gradient(const Tile& tile, int64_t valid, const T* ds, T* table) {
  each_score<T>(tile, [&](int, int64_t at, int64_t, int64_t, int64_t shift, int64_t index) {
    for (int64_t l = 0; l < valid; ++l) {
      if (shift < tile.lanes.count[l]) table[index + tile.lanes.bias[l]] += ds[at + l];
    }
  });
}

// One vector's worth of places, of which the first `rows` exist.
template <bool kFull, class S, class T>
inline void pack_block(int64_t rows, int64_t depth, const S* from, const int64_t* offset, T scale,
                       T* to, int64_t pitch) {
  constexpr int kN = kLanes<T>;
  const int64_t full = depth / kN * kN;
  for (int64_t c = 0; c < full; c += kN) {
    Vector<T> tile[kN];
#pragma GCC unroll 16
    for (int r = 0; r < kN; ++r)
      tile[r] = kFull || r < rows ? load(from + offset[r] + c) * scale : Vector<T>{};
    transpose_stages<T, 1>(tile);
#pragma GCC unroll 16
    for (int r = 0; r < kN; ++r) store(to + (c + r) * pitch, tile[r]);
  }
  for (int64_t c = full; c < depth; ++c) {
    Vector<T> row{};
    for (int r = 0; r < rows; ++r) row[r] = get(from + offset[r] + c) * scale;
    store(to + c * pitch, row);
  }
}

template <class S, class T>
void pack(int64_t count, int64_t depth, const S* from, const int64_t* offset, T scale, T* to,
          int64_t pitch) {
  constexpr int kN = kLanes<T>;
  int64_t i = 0;
  for (; i + kN <= count; i += kN) {
    // places lie far apart: what comes next is asked for while this block is transposed
    for (int64_t next = i + kN; next < i + 2 * kN && next < count; ++next) {
      for (int64_t c = 0; c < depth; c += 64 / static_cast<int64_t>(sizeof(S)))
        __builtin_prefetch(from + offset[next] + c);
    }
    pack_block<true>(kN, depth, from, offset + i, scale, to + i, pitch);
  }
  if (i < count) {
    pack_block<false>(count - i, depth, from, offset + i, scale, to + i, pitch);
    i += kN;
  }
  for (; i < pitch; i += kN) {
    for (int64_t c = 0; c < depth; ++c) store(to + c * pitch + i, Vector<T>{});
  }
}

}  // namespace
}  // namespace halcyon::neighborhood

#include "halcyon/ops/hidden-inl.h"
#include "halcyon/ops/neighborhood/cpu_lists-inl.h"
#include "halcyon/ops/neighborhood/cpu_slots-inl.h"

namespace halcyon::neighborhood {
namespace {

template <class T>
Kernel<T> make_kernel() {
  return {kLanes<T>, scores<T>,         soften<T>,       weigh<T>,
          spread<T>, query_gradient<T>, bias_gradient<T>};
}

KernelTable make_kernels() {
  return {
      make_kernel<float>(),
      make_kernel<double>(),
      make_list_kernel<float>(),
      make_list_kernel<double>(),
      {pack<float, float>, gather<float, float>, scatter<float, float>, dots<float, float>},
      {pack<Bf16, float>, gather<Bf16, float>, scatter<Bf16, float>, dots<Bf16, float>},
      {pack<double, double>, gather<double, double>, scatter<double, double>, dots<double, double>},
      make_slot_table()};
}

}  // namespace
}  // namespace halcyon::neighborhood
