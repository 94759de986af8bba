// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace halcyon {

// Root mean square normalisation (rms_norm.h) of queries and keys over their channels before they
// meet: weights (d,) or undefined for ones.
struct QkNorm {
  at::Tensor query_weight, key_weight;
  double eps;
};

// softmax(q k^T / sqrt(d) + mask) v of q, k and v (B, N, H, d) by ATen's operators, on any device
// and of any floating type; mask broadcasts to (B, H, N, N), boolean (true attends) or added, and
// may be undefined. Weights drop with the probability `dropout`. What the mask hides, where it is
// false or -infinity, changes nothing whatever it holds (hidden.h).
at::Tensor attention_by_operators(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const at::Tensor& mask, double dropout, bool causal);

// softmax(q k^T / sqrt(d)) v of every token with every token, or with itself and those before it
// (causal), head by head. qkv (B, N, 3, H, d) holds q, k and v side by side, as one linear layer
// makes them; their gradient then needs no copy to join it. The result is (B, N, H, d), in qkv's
// type or autocast's. Differentiable once, in qkv and the weights.
//
// On a CPU blocks of queries meet blocks of keys under an online softmax (Dao et al. 2022,
// arXiv:2205.14135), normalised as they are packed: memory linear in N, the same bits for every
// number of threads. ATen's operators compute half, bfloat16 where AMX multiplies it, and all else
// that is not on a CPU.
at::Tensor self_attention(const at::Tensor& qkv, const std::optional<QkNorm>& norm = {},
                          bool causal = false);

}  // namespace halcyon
