// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "halcyon/ops/storage.h"

// Between the driver (cpu.cpp) and the kernels, compiled once for each instruction set. Rows of
// queries, outputs and their gradients are (heads, head_dim) in the storage type S; all else is in
// the accumulation type T.
namespace halcyon::pixel_attention_detail {

template <class T>
struct Problem {
  int64_t heads, n_kv, head_dim, token_dim;
  const T* tokens;  // (N, token_dim)
  const T* w_k;     // (n_kv * head_dim, token_dim), times the scale of the scores
  const T* w_v;
  const T* b_v;  // (n_kv * head_dim,) or null
};

// A run of one pixel's tokens.
struct Run {
  int64_t begin, end;
};

template <class S, class T>
struct Kernel {
  // In elements of T: scratch of one thread; the state that part functions leave for join
  // functions; the sums of weight gradients, and the row length in their two matrices.
  int64_t (*scratch_size)(const Problem<T>&);
  int64_t (*part_size)(const Problem<T>&);
  int64_t (*sums_size)(const Problem<T>&);

  // A whole pixel, run not empty. lse (heads,).
  void (*forward)(const Problem<T>&, const S* q, Run run, S* out, T* lse, T* scratch);
  void (*backward)(const Problem<T>&, const S* q, const S* grad_out, const T* lse, Run run,
                   S* grad_q, T* grad_tokens, T* sums, T* scratch);

  // The same in steps, for pixels whose runs are worked on by several threads.
  void (*forward_part)(const Problem<T>&, const S* q, Run run, T* part, T* scratch);
  void (*forward_join)(const Problem<T>&, const T* parts, int64_t count, S* out, T* lse,
                       T* scratch);
  void (*backward_weighted)(const Problem<T>&, const S* q, const T* lse, Run run, T* part,
                            T* scratch);
  // Adds up the parts of backward_weighted into the first.
  void (*add_parts)(const Problem<T>&, T* parts, int64_t count);
  void (*backward_part)(const Problem<T>&, const S* q, const S* grad_out, const T* lse,
                        const T* weighted, Run run, T* grad_tokens, T* part, T* scratch);
  // grad_folded: the parts of backward_part added up.
  void (*backward_join)(const Problem<T>&, const S* q, const S* grad_out, const T* weighted,
                        const T* grad_folded, S* grad_q, T* sums, T* scratch);
  // The sums of weight gradients as (n_kv * head_dim, token_dim) twice and (n_kv * head_dim,).
  void (*unpack_sums)(const Problem<T>&, const T* sums, T* grad_w_k, T* grad_w_v, T* grad_b_v);
};

struct KernelTable {
  Kernel<float, float> f32;
  Kernel<Bf16, float> bf16;
  Kernel<double, double> f64;
};

KernelTable kernels_default();
KernelTable kernels_avx2();
KernelTable kernels_avx512();

}  // namespace halcyon::pixel_attention_detail
