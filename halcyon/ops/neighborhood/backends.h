// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "halcyon/ops/cpu_level.h"
#include "halcyon/ops/neighborhood/window.h"

// The raw compute of fused neighborhood attention; arguments are checked by the caller.
namespace halcyon::neighborhood {

// Of sums, lse and scores: double for double, else float.
inline at::ScalarType accumulate_type(const at::Tensor& t) {
  return t.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

struct Inputs {
  at::Tensor query, key, value;                      // (B, *, H, d), (B, *, G, d), (B, *, G, e)
  std::optional<at::Tensor> bias;                    // (H, 2 K0 - 1, ...)
  std::optional<at::Tensor> more_keys, more_values;  // (B, N, G, d), (B, N, G, e), seen by all
  std::vector<Axis> axes;
  double scale;

  at::ScalarType accumulate() const { return accumulate_type(query); }
};

struct Output {
  at::Tensor out;  // (B, *, H, e), dtype of query
  at::Tensor lse;  // (B, *, H), accumulate()
};

struct Gradients {
  // In the dtypes of the inputs; undefined where there is no input.
  at::Tensor query, key, value, bias, more_keys, more_values;
};

// Gathers the keys of every query by ATen operators: differentiable by itself any number of times
// and in forward mode, on any device. Memory grows with tokens x window.
Output reference(const Inputs& in);
// By autograd through reference(); grad_lse may be undefined.
Gradients reference_gradients(const Inputs& in, const at::Tensor& grad_out,
                              const at::Tensor& grad_lse);

// How the tiles cut a problem; 0 leaves it to them. No choice changes more than rounding.
struct Tiling {
  int64_t slots = 0;  // scores of a query at a time
  int64_t bytes = 0;  // packed memory of a thread
};

// Tiles over packed, transposed keys and values; nothing of the size tokens x window is stored. The
// tiles leave additional tokens to the caller.
Output forward_tiled(const Inputs& in, CpuLevel level = cpu_level(), const Tiling& tiling = {});
// Recomputes the weights, once over queries and once over keys. delta (B, *, H), accumulate(), is
// delta_of(); lse may be that of a softmax over more than the window.
Gradients backward_tiled(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                         const at::Tensor& delta, CpuLevel level = cpu_level(),
                         const Tiling& tiling = {});

// Whether every window covers its axes (or, of one axis, all tokens up to the query), with nothing
// that plain attention lacks.
bool is_plain(const Inputs& in);
// Such a problem by plain attention's kernels. grad_lse may be undefined; output may be that of a
// softmax over more than the window.
Output forward_plain(const Inputs& in);
Gradients backward_plain(const Inputs& in, const Output& output, const at::Tensor& grad_out,
                         const at::Tensor& grad_lse);
// The same by ATen operators, without additional tokens.
Output compose_plain(const Inputs& in);

// Fused attention by matrix products of blocks of queries with boxes of keys.
Output forward_gemm(const Inputs& in);
Gradients backward_gemm(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                        const at::Tensor& delta);

// With p = exp(s - lse) and dp = grad_out . v, the gradient of the scores is p (dp - delta), where
// delta = grad_out . out - grad_lse (FlashAttention-2, arXiv:2307.08691, section 3.1). grad_lse may
// be undefined.
at::Tensor delta_of(const Output& forward, const at::Tensor& grad_out, const at::Tensor& grad_lse);

// Brings the additional tokens into the result of the window alone, in place.
void add_more_tokens(const Inputs& in, Output& output);
// Their gradients, and their part of query's, which is added to grad.query.
void add_more_gradients(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                        const at::Tensor& delta, Gradients& grad);

}  // namespace halcyon::neighborhood
