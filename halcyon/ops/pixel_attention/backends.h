// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/ops/cpu_level.h"

// The raw compute of pixel_attention, without autograd. The arguments are checked by the caller,
// cu_seqlens excepted.
namespace halcyon::pixel_attention_detail {

struct Inputs {
  at::Tensor q;                   // (P, H, d)
  at::Tensor tokens;              // (N, D)
  at::Tensor w_k, w_v;            // (n_kv * d, D)
  std::optional<at::Tensor> b_v;  // (n_kv * d,)
  at::Tensor cu_seqlens;          // (P + 1,)
  int64_t n_kv;
  double scale;

  // Sums are kept in float, in double when any input is double.
  at::ScalarType accumulate() const;
};

struct Forward {
  at::Tensor out;  // like q
  at::Tensor
      lse;  // (P, H) in the accumulation type: log sum exp of the scaled scores; 0 when empty
};

// In the accumulation type or the input's; b_v undefined when there was none.
struct Gradients {
  at::Tensor q, tokens, w_k, w_v, b_v;
};

// A composition of ATen operators for any device: pixels of like counts padded together, a bounded
// number of scores at a time.
Forward forward_composed(const Inputs& in);
Gradients backward_composed(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out);

// One pass over the tokens with nothing of the size of tokens x heads in memory; the backward
// recomputes the weights from lse. Bit-identical for any number of threads.
Forward forward_cpu(const Inputs& in, CpuLevel level = cpu_level());
Gradients backward_cpu(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                       CpuLevel level = cpu_level());

}  // namespace halcyon::pixel_attention_detail
