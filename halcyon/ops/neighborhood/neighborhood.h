// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

// Neighborhood attention: every token attends to the tokens of a window around it (NATTEN;
// arXiv:2204.07143, dilation 2209.15001, fused 2403.04690, strides 2504.16922).
namespace halcyon {

// "Per axis": one value for all axes or one an axis.
struct NeighborhoodOptions {
  std::vector<int64_t> kernel_size;
  std::vector<int64_t> dilation = {1};
  std::vector<int64_t> stride = {1};     // 1 to kernel_size: so many neighbours share a window
  std::vector<int64_t> is_causal = {0};  // 0 or 1: only keys up to the query
  std::vector<int64_t> periodic = {0};   // 0 or 1: the axis closes on itself, as longitude does
  std::optional<at::Tensor> rpb;         // (H, 2 K0 - 1, ...) added to the scores
  std::optional<double> scale;           // of the products; d^-0.5 if none
  std::optional<at::Tensor> additional_keys, additional_values;  // (B, N, G, d), (B, N, G, e)
  std::string backend;  // "" (choose), "reference", "tiled", "gemm"
};

struct AttentionOutput {
  at::Tensor out;  // (B, *, H, e) in the dtype of query
  at::Tensor lse;  // (B, *, H) natural logarithm of the sum of exponentials; float, or double
};

// query (B, *, H, d), key (B, *, G, d), value (B, *, G, e) with * one, two, three axes; query head
// h uses key and value head h / (H / G). The window of a query is the product of the axes' windows:
// kernel_size keys, dilation apart, as near to centred as stays inside the axis. One softmax over
// the window and the additional tokens. Types float, double, bfloat16, half (computed in float);
// any strides. Gradients in every floating operand and through both results, the same bits for
// every number of threads. Throws Error(argument), or Error(unsupported) for a bias with a causal
// axis, a periodic axis that is causal or strided, and nested or sparse tensors.
AttentionOutput na1d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options);
AttentionOutput na2d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options);
AttentionOutput na3d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options);

struct AttentionOptions {
  bool is_causal = false;  // query i sees keys 0 to i
  std::optional<double> scale;
  // Sequences that stand one after the other in a batch of 1; zeros allowed.
  std::optional<std::vector<int64_t>> seqlens_q, seqlens_kv;
  bool with_lse = true;  // without, lse is undefined and no scores are stored
};

// Plain attention: query (B, T, H, d), key (B, S, G, d), value (B, S, G, e). A query without any
// key gives 0 and lse -infinity.
AttentionOutput attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                          const AttentionOptions& options);

// na1d of each of the sequences that stand one after the other in (1, sum of seqlens, H, d).
AttentionOutput na1d_varlen(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const std::vector<int64_t>& seqlens,
                            const NeighborhoodOptions& options);

// The mean of outputs (B, *, H, e) weighted by the softmax of their lses (B, *, H), two or more,
// and the joint lse: attention over disjoint sets of keys becomes attention over their union,
// gradients included. Computed in float (double for double).
AttentionOutput merge_attentions(at::TensorList outputs, at::TensorList lses);

}  // namespace halcyon
