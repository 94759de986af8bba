// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "halcyon/ops/cpu_level.h"

// The raw compute of plain attention; arguments are checked by the caller.
namespace halcyon::attention_detail {

// query (B, N, H, d), key and value (B, M, G, d) with H a multiple of G, all of one type, any
// strides. Query head h reads key head h / (H / G). causal: query i sees the keys 0 to i. Where
// weights (d,) are defined, queries and keys are first normalised by their root mean square with
// eps and multiplied by them.
struct Inputs {
  at::Tensor query, key, value;
  double scale;
  bool causal = false;
  at::Tensor query_weight = {}, key_weight = {};
  double eps = 0;

  at::ScalarType accumulate() const {
    return query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  }
};

struct Output {
  at::Tensor out;  // as query, contiguous
  at::Tensor lse;  // (B, N, H), natural logarithm of the sum of exponentials, accumulate()
};

// In the types of what they are of. Tokens and heads may be strided, channels may not. The weights'
// may be undefined.
struct Gradients {
  at::Tensor query, key, value;
  at::Tensor query_weight, key_weight;
};

// By definition, of ATen operators, which autograd differentiates. Any device; the whole matrix of
// scores at once.
Output composed(const Inputs& in);

// Whether products of pairs of bfloat16 (vdpbf16ps) are compiled and this processor has them at
// twice float's rate (cpu_bf16.h).
bool has_pairs(CpuLevel level = cpu_level());

// On a CPU, of float, bfloat16 or double, with a query, a key and a channel at least: blocks of
// queries by blocks of keys and an online softmax, memory linear in the tokens. bfloat16 is
// multiplied in pairs, or as float. The same bits for every number of threads.
Output forward_cpu(const Inputs& in, CpuLevel level = cpu_level(), bool pairs = has_pairs());

// Into `into`, whose tensors the caller has made. grad_lse may be undefined.
void backward_cpu(const Inputs& in, const Output& output, const at::Tensor& grad_out,
                  const at::Tensor& grad_lse, const Gradients& into, CpuLevel level = cpu_level(),
                  bool pairs = has_pairs());

}  // namespace halcyon::attention_detail
