// SPDX-License-Identifier: Apache-2.0
// No #pragma once: each instruction set's file includes it once, after cpu_kernel-inl.h's tiles.
// Rows of slots in memory to lanes and back, by square transpositions.
#include "halcyon/ops/neighborhood/cpu_kernel.h"

namespace halcyon::neighborhood {
namespace {

template <class T, class S>
inline void read_square(int64_t count, const S* const* rows, T* to, int64_t pitch, int64_t slots) {
  constexpr int kN = kLanes<T>;
  Vector<T> tile[kN];
#pragma GCC unroll 16
  for (int r = 0; r < kN; ++r) tile[r] = r < count ? load(rows[r]) : Vector<T>{};
  transpose_stages<T, 1>(tile);
#pragma GCC unroll 16
  for (int r = 0; r < kN; ++r) {
    if (r < slots) store(to + r * pitch, tile[r]);
  }
}

template <class T, class S>
inline void write_square(int64_t count, const T* from, S* const* rows, int64_t slots) {
  constexpr int kN = kLanes<T>;
  Vector<T> tile[kN];
#pragma GCC unroll 16
  for (int r = 0; r < kN; ++r) tile[r] = r < slots ? load(from + r * kN) : Vector<T>{};
  transpose_stages<T, 1>(tile);
#pragma GCC unroll 16
  for (int r = 0; r < kN; ++r) {
    if (r < count) store(rows[r], tile[r]);
  }
}

// Rows shorter than a vector pass through a buffer where they follow each other, and so may be read
// and written beyond their ends.
template <class S, class T>
struct ShortRows {
  static constexpr int kN = kLanes<T>;

  ShortRows(int64_t n, const int64_t* offset, int64_t slots) : count(n), length(slots) {
    for (int64_t i = 0; i < n; ++i) contiguous = contiguous && offset[i] == offset[0] + i * slots;
    for (int64_t i = 0; i < kN; ++i) row[i] = buffer + i * slots;
  }
  // f(row or rows in memory, in the buffer, elements)
  template <class F>
  void each(const int64_t* offset, const F& f) {
    if (contiguous) return f(offset[0], buffer, count * length);
    for (int64_t i = 0; i < count; ++i) f(offset[i], row[i], length);
  }

  int64_t count, length;
  bool contiguous = true;
  S buffer[kN * kN + kN];
  S* row[kN];
};

template <class S, class T>
void read_slots(int64_t count, int64_t slots, const S* from, const int64_t* offset, T* to,
                int64_t pitch) {
  constexpr int kN = kLanes<T>;
  if (slots < kN) {
    ShortRows<S, T> rows(count, offset, slots);
    rows.each(offset, [&](int64_t at, S* row, int64_t n) {
      for (int64_t i = 0; i < n; ++i) row[i] = from[at + i];
    });
    return read_square<T, S>(count, rows.row, to, pitch, slots);
  }
  for (int64_t s = 0; s < slots; s += kN) {
    const int64_t first = s + kN > slots ? slots - kN : s;  // the last square overlaps
    const S* rows[kN];
    for (int64_t i = 0; i < kN; ++i) rows[i] = from + (i < count ? offset[i] : offset[0]) + first;
    if (count == kN) {
      read_square<T, S>(kN, rows, to + first * pitch, pitch, kN);
    } else {
      read_square<T, S>(count, rows, to + first * pitch, pitch, kN);
    }
  }
}

template <class S, class T>
void write_slots(int64_t count, int64_t slots, const T* from, S* to, const int64_t* offset) {
  constexpr int kN = kLanes<T>;
  if (slots < kN) {
    ShortRows<S, T> rows(count, offset, slots);
    write_square<T, S>(count, from, rows.row, slots);
    return rows.each(offset, [&](int64_t at, S* row, int64_t n) {
      for (int64_t i = 0; i < n; ++i) to[at + i] = row[i];
    });
  }
  for (int64_t s = 0; s < slots; s += kN) {
    const int64_t first = s + kN > slots ? slots - kN : s;
    S* rows[kN];
    for (int64_t i = 0; i < count; ++i) rows[i] = to + offset[i] + first;
    if (count == kN) {
      write_square<T, S>(kN, from + first * kN, rows, kN);
    } else {
      write_square<T, S>(count, from + first * kN, rows, kN);
    }
  }
}

template <class T>
void fill_unused(const Tile& tile, T value, T* s) {
  const auto count = indices<T>(tile.lanes.count);
  each_score<T>(tile, [&](int, int64_t at, int64_t, int64_t, int64_t shift, int64_t) {
    const auto inside = count > IndexVector<T>{} + static_cast<typename IndexOf<T>::type>(shift);
    store(s + at, inside ? load(s + at) : Vector<T>{} + value);
  });
}

// How the lanes of a tile of keys find their scores at consecutive places of any row.
template <class T>
struct KeyReads {
  static constexpr int64_t kMost = 32;

  // Prepares n places from first_place, which meet the lanes at shifts from first_shift.
  void prepare(const Tile& tile, const SlotBox<T>& box, int64_t first_place, int64_t first_shift,
               int64_t n) {
    if (place == first_place && shift == first_shift && shifts == n) return;
    place = first_place;
    shift = first_shift;
    shifts = n;
    const auto& lanes = tile.lanes;
    const bool direct = lanes.mode == Lanes::direct && !lanes.ragged;
    for (int64_t j = 0; j < n; ++j) {
      const int64_t here = place + j;
      // one slot of consecutive queries
      steady[j] = direct && box.steady[here] >= box.valid;
      at[j] = here - box.first[here] * box.pitch;
      if (steady[j]) continue;
      int64_t seen = 0;  // by some lane: what the others may read
      for (int64_t l = 0; l < kLanes<T>; ++l) {
        const int64_t lane = l < box.valid ? l : box.valid - 1, p = here + lanes.at[lane];
        const bool used = shift + j < lanes.count[lane];
        inside[j][l] = used ? -1 : 0;
        if (used) seen = (lane - box.first[p]) * box.pitch + p;
        index[j][l] = seen;
      }
      for (int64_t l = 0; l < kLanes<T> && inside[j][l] == 0; ++l) index[j][l] = seen;
    }
  }

  void read(const T* from, T* s) const {
    for (int64_t j = 0; j < shifts; ++j) {
      Vector<T> x;
      if (steady[j]) {
        x = load(from + at[j]);
      } else {
        for (int l = 0; l < kLanes<T>; ++l) x[l] = from[index[j][l]];
        x = inside[j] ? x : Vector<T>{};
      }
      store(s + j * kLanes<T>, x);
    }
  }

  int64_t place = 0, shift = 0, shifts = 0;
  bool steady[kMost];
  int64_t at[kMost];
  int64_t index[kMost][kLanes<T>];
  IndexVector<T> inside[kMost];
};

template <class T>
void scores_of_keys(const Tile& tile, const SlotBox<T>& box, T* s) {
  using Reads = KeyReads<T>;
  Reads reads;  // runs of stacked tiles have the same places
  for (const Run* run = tile.runs; run != tile.runs + tile.n_runs; ++run) {
    for (int64_t j = 0; j < run->shifts; j += Reads::kMost) {
      const int64_t left = run->shifts - j;
      reads.prepare(tile, box, run->element + j, run->shift + j,
                    left < Reads::kMost ? left : Reads::kMost);
      for (int v = 0; v < run->vectors; ++v) {
        const T* from = box.data + box.vector[run->first_vector + v];
        T* to = s + first_score<T>(tile, *run, v) + j * kLanes<T>;
        for (int64_t row = 0; row < run->rows; ++row, to += run->shifts * kLanes<T>)
          reads.read(from + box.row[run->row + row], to);
      }
    }
  }
}

template <class T>
SlotKernel<T> make_slot_kernel() {
  return {fill_unused<T>, scores_of_keys<T>};
}

SlotTable make_slot_table() {
  return {make_slot_kernel<float>(),
          make_slot_kernel<double>(),
          {read_slots<float, float>, write_slots<float, float>},
          {read_slots<Bf16, float>, write_slots<Bf16, float>},
          {read_slots<double, double>, write_slots<double, double>}};
}

}  // namespace
}  // namespace halcyon::neighborhood
