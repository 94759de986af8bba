// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

// Attention of some queries with one block of keys out of many; all tensors heads first,
// query (B, H, S, d), key (B, G, K, d), value (B, G, K, e), of one type, float or double.
namespace halcyon::parallel {

struct BlockOutput {
  at::Tensor out;  // (B, H, S, e)
  at::Tensor lse;  // (B, H, S)
};

// causal: query i of the block sees keys 0 to i.
BlockOutput attend_block(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                         double scale, bool causal);

// Attention over two disjoint sets of keys becomes that over their union; `into` is overwritten.
void merge(BlockOutput& into, const BlockOutput& block);

struct BlockGradients {
  at::Tensor query, key, value;
};

// The block's part of the gradients, where output is that of all blocks.
BlockGradients block_gradients(const at::Tensor& query, const at::Tensor& key,
                               const at::Tensor& value, const BlockOutput& output,
                               const at::Tensor& grad_out, double scale, bool causal);

// All gradients at once by ATen's operators, which autograd differentiates: key and value of every
// rank, first_query the global number of this rank's first.
BlockGradients gradients_by_operators(const at::Tensor& query, const at::Tensor& key,
                                      const at::Tensor& value, const at::Tensor& grad_out,
                                      double scale, bool causal, int64_t first_query);

}  // namespace halcyon::parallel
