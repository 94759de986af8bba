// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "halcyon/ops/storage.h"

// Between the driver (cpu.cpp) and the kernels, compiled once for each instruction set. S is the
// storage type of what belongs to an observation, T the type of parameters and sums.
namespace halcyon::film_detail {

inline constexpr int kMostTables = 3;

// A table of embeddings behind the first layer: its rows times the table's columns of weight1, the
// first table's plus bias1 too.
template <class T>
struct Table {
  const T* rows;       // (rows, hidden_p)
  const int64_t* ids;  // (N,)
};

// Widths with the suffix _p are rounded up to whole vectors; matrices are zero there.
template <class T>
struct Problem {
  int64_t meta, meta_p, hidden, hidden_p, out, out_p;
  int tables;
  Table<T> table[kMostTables];
  const T *w1_t, *w1;        // the metadata's columns: (meta, hidden_p), (hidden, meta_p)
  const T *norm_w, *norm_b;  // (hidden_p,)
  const T* inside;           // (hidden_p,): 1, and 0 in the padding
  const T *w2_t, *w2;        // (hidden, 2 * out_p), (2 * out_p, hidden_p)
  const T* b2;               // (2 * out_p,)
  T eps;
};

template <class T>
struct Sums {
  T *w1_t, *w2_t, *norm_w, *norm_b, *b2;  // like the parameters
  T* table[kMostTables];                  // (rows, hidden_p), of Table's rows
};

template <class S>
struct Rows {
  const S *obs, *meta;
};

template <class S, class T>
struct Kernel {
  int64_t (*scratch_size)(const Problem<T>&);  // in elements of T
  // Observations first .. last; out (N, out).
  void (*forward)(const Problem<T>&, Rows<S> in, int64_t first, int64_t last, S* out, T* scratch);
  // Adds to sums; grad_obs (N,), grad_meta (N, meta) or null.
  void (*backward)(const Problem<T>&, Rows<S> in, const S* grad_out, int64_t first, int64_t last,
                   S* grad_obs, S* grad_meta, const Sums<T>& sums, T* scratch);
};

struct KernelTable {
  int64_t bytes;  // of a vector
  Kernel<float, float> f32;
  Kernel<Bf16, float> bf16;
  Kernel<double, double> f64;
};

KernelTable kernels_default();
KernelTable kernels_avx2();
KernelTable kernels_avx512();

}  // namespace halcyon::film_detail
