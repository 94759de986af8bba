// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "halcyon/ops/storage.h"

// Between the driver (cpu.cpp) and the kernels, compiled once for each instruction set. They work
// on one head of one sample, blocks of queries by blocks of keys, as Dao et al. 2022
// (arXiv:2205.14135): the scores of two blocks never leave the second-level cache.
namespace halcyon::attention_detail {

// Queries and keys of a block. Fixed, so that the order of sums is.
inline constexpr int64_t kQueryBlock = 192, kKeyBlock = 256;

// The tokens of one head: token t at data + t * row, its channels side by side. The next head's
// stand `head` further on.
template <class S>
struct Rows {
  S* data;
  int64_t row, head;
};

template <class T>
struct Problem {
  int64_t queries, keys, width;
  T scale;
  bool causal;  // query i sees the keys 0 to i
  // Where they are not null, queries and keys are normalised by their root mean square and
  // multiplied by these (padded width,).
  const T *query_weight, *key_weight;
  T eps;
};

// What one kernel of the backward works on: all queries of the query heads that share a key head,
// and some of its keys.
template <class S, class T>
struct Share {
  int64_t heads, first_key, keys;
  Rows<const S> query, out, grad_out, key, value;
  Rows<const T> lse, grad_lse;  // one channel; grad_lse.data may be null
  T* grad_query;                // (heads, queries, padded width), of the scaled scores
  Rows<S> grad_key, grad_value;
  T* add_key_weight;  // (padded width,), or null
};

template <class S, class T>
struct Kernels {
  int64_t (*padded_width)(int64_t width);
  // Forward: elements of scratch, the packing of keys and values into it, and the results of some
  // queries of one block.
  int64_t (*forward_scratch)(const Problem<T>&);
  void (*pack)(const Problem<T>&, Rows<const S> key, Rows<const S> value, T* scratch);
  void (*attend)(const Problem<T>&, int64_t first, int64_t count, Rows<const S> query, Rows<S> out,
                 Rows<T> lse, T* scratch);
  // Backward of a share, and the gradient of all queries of one head from the sums of `parts`
  // shares of it, which stand `apart`.
  int64_t (*backward_scratch)(const Problem<T>&, int64_t keys);
  void (*backward)(const Problem<T>&, const Share<S, T>&, T* scratch);
  void (*finish_queries)(const Problem<T>&, int64_t parts, int64_t apart, const T* sums,
                         Rows<const S> query, Rows<S> grad_query, T* add_query_weight, T* scratch);
};

struct KernelTable {
  Kernels<float, float> f32;
  Kernels<Bf16, float> bf16;
  Kernels<double, double> f64;
};

KernelTable kernels_default();
KernelTable kernels_avx2();
KernelTable kernels_avx512();
// Products of pairs of bfloat16. Null where it is not compiled.
const Kernels<Bf16, float>* kernels_avx512_bf16();

}  // namespace halcyon::attention_detail
