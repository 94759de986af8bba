// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "halcyon/ops/neighborhood/cpu_slots.h"
#include "halcyon/ops/storage.h"

// Between the driver (cpu_*.cpp) and the kernels, compiled once for each instruction set.
//
// A block is as many targets (queries; in the backward for keys and values, keys) along the last
// axis as a vector has lanes. Lane l of a block meets its sources at consecutive elements of a row
// of the packed box, so that "shift s" is one vector read for the whole block and no lane ever
// works on a pair outside its window: the scores of 16 queries against their s-th keys are
//   sum_c a[c][lane] * box[c][first + at[lane] + s].
// A tile is up to kMaxVectors blocks that share what is read: the same lanes of consecutive rows of
// targets, or consecutive blocks of one row.
//
// What follows the softmax needs nothing transposed: a lane's weights are broadcast, one by one,
// and channels stand in the vectors, as they do in memory (RowBox).
namespace halcyon::neighborhood {

inline constexpr int kMaxLanes = 16;

// How the lanes of a block read a row of the box.
struct Lanes {
  enum Mode : int32_t { direct, permuted, scattered };
  Mode mode = direct;             // at[l] = l; at[l] < lanes; anything
  bool ragged = false;            // some lanes have fewer sources than others
  int32_t at[kMaxLanes] = {};     // from lane 0's element
  int32_t count[kMaxLanes] = {};  // shifts of the lane; those from here on are masked
  int32_t bias[kMaxLanes] = {};   // index on the bias table's last axis at shift 0
};

// Rows x shifts of the box that vectors first_vector, ... share.
struct Run {
  int64_t row = 0, rows = 0;      // consecutive in the box
  int64_t element = 0;            // in the row: lane 0's at the first shift
  int64_t shift = 0, shifts = 0;  // the first shift, for the mask; ragged tiles alone read it
  int32_t first_vector = 0, vectors = 0;
  int64_t slot[kMaxVectors] = {};  // by vector of the tile: its first score
  int64_t bias[kMaxVectors] = {};  // index into the bias table, without the lane's part
};

// What one call works on; scores are (vectors, capacity, lanes).
struct Tile {
  Lanes lanes;
  int32_t vectors = 0;
  bool continued = false;  // not the first step of the online softmax
  const Run* runs = nullptr;
  int64_t n_runs = 0;
  int64_t slots[kMaxVectors] = {};  // scores of each vector
  int64_t capacity = 0;
  int64_t bias_row = 0, bias_step = 0;  // of the table's index: to the next row, to the next shift
};

// (rows, depth, pitch): the sources, transposed.
template <class T>
struct PackedBox {
  const T* data;
  int64_t depth, pitch;
};

// (rows, width, pitch): the sources as they are, channels padded by zeros to whole vectors. Row r
// and place i are those of the packed box.
template <class T>
struct RowBox {
  T* data;
  int64_t width, pitch;
};

template <class T>
struct Kernel {
  int lanes;
  // s = a . box + table; a is (vectors, depth, lanes). Masked shifts become -infinity.
  void (*scores)(const Tile&, const T* a, PackedBox<T> box, const T* bias_table, T* s);
  // One step of the online softmax: s becomes exp(s - max); max and sum (vectors, lanes) and out
  // (vectors, lanes, pitch) are brought to the new maximum.
  void (*soften)(const Tile&, int64_t pitch, T* s, T* max, T* sum, T* out);
  // out (vectors, lanes, pitch) += s . box, of the first `valid` lanes
  void (*weigh)(const Tile&, int64_t valid, const T* s, RowBox<const T> box, T* out);
  // box += s^T . rows (vectors, lanes, pitch), of the first `valid` lanes
  void (*spread)(const Tile&, int64_t valid, const T* s, const T* rows, RowBox<T> box);
  // s becomes p = exp(s - lse) and dp becomes p (dp - delta); lse and delta
  // are (vectors, lanes).
  void (*query_gradient)(const Tile&, const T* lse, const T* delta, T* s, T* dp);
  // table += the sums of ds over the pairs of each relative position; lanes from valid on repeat.
  void (*bias_gradient)(const Tile&, int64_t valid, const T* ds, T* table);
};

inline constexpr int kListLanes = 16;

// A block of kListLanes targets and a list of n sources, gathered as rows (n, pitch) of which depth
// channels exist; scores are (n, kListLanes), the targets (depth, kListLanes).
template <class T>
struct ListKernel {
  // s = rows . lanes; -infinity where bit l of seen_by[i] is not set, if it is given.
  void (*scores)(int64_t n, int64_t depth, int64_t pitch, const T* rows, const T* lanes,
                 const uint16_t* seen_by, T* s);
  // One step of the online softmax, as above; out is (kListLanes, pitch).
  void (*soften)(int64_t n, int64_t pitch, T* s, T* max, T* sum, T* out);
  // out (kListLanes, pitch) += s^T . rows
  void (*weigh)(int64_t n, int64_t pitch, const T* s, const T* rows, T* out);
  // The same of rows that may not be finite: a target takes of them what it sees. clean (n, pitch).
  void (*weigh_seen)(int64_t n, int64_t pitch, const T* s, const T* rows, const uint16_t* seen_by,
                     T* out, T* clean);
  // s becomes p = exp(s - lse), dp becomes p (dp - delta), 0 where s is -infinity; of the targets,
  // or of the sources.
  void (*query_gradient)(int64_t n, const T* lse, const T* delta, T* s, T* dp);
  void (*key_gradient)(int64_t n, const T* lse, const T* delta, T* s, T* dp);
};

template <class S, class T>
struct Mover {
  // to[c * pitch + i] = scale * from[offset[i] + c] for i < count, 0 from there to pitch
  void (*pack)(int64_t count, int64_t depth, const S* from, const int64_t* offset, T scale, T* to,
               int64_t pitch);
  // to[i * pitch + c] = scale * from[offset[i] + c] for c < depth, 0 from there to pitch
  void (*gather)(int64_t count, int64_t depth, const S* from, const int64_t* offset, T scale, T* to,
                 int64_t pitch);
  // to[offset[i] + c] = factor[i] * from[i * pitch + c] for c < depth
  void (*scatter)(int64_t count, int64_t depth, const T* from, int64_t pitch, const T* factor,
                  S* to, const int64_t* offset);
  // to[i] = the dot product of the i-th rows of a and b, (count, depth)
  void (*dots)(int64_t count, int64_t depth, const S* a, const S* b, T* to);
};

struct SlotTable {
  SlotKernel<float> f32;
  SlotKernel<double> f64;
  SlotMover<float, float> move_f32;
  SlotMover<Bf16, float> move_bf16;
  SlotMover<double, double> move_f64;
};

struct KernelTable {
  Kernel<float> f32;
  Kernel<double> f64;
  ListKernel<float> list_f32;
  ListKernel<double> list_f64;
  Mover<float, float> move_f32;
  Mover<Bf16, float> move_bf16;
  Mover<double, double> move_f64;
  SlotTable slots;
};

KernelTable kernels_default();
KernelTable kernels_avx2();
KernelTable kernels_avx512();

}  // namespace halcyon::neighborhood
