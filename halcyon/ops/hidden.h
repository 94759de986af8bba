// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

// Attention under a mask, of ATen operators. A weight of 0 does not hide what is not finite: 0
// times a NaN is NaN. What is hidden from a query changes nothing for it here, whatever it holds.
//
// hidden broadcasts to (.., N, M), bool: query i of N does not see key j of M. All but seen_matmul
// are differentiable in every mode and ask nothing of the numbers, so that they can be traced.
namespace halcyon {

// q k^T of q (.., N, c) and k (.., M, c), and `fill` where hidden. A pair that is seen and has a
// number that is not finite scores NaN.
at::Tensor seen_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& hidden,
                       double fill);

// weights v of weights (.., N, M) and v (.., M, c). NaN where a query sees a number that is not
// finite; no gradient goes back from there.
at::Tensor seen_sums(const at::Tensor& weights, const at::Tensor& v, const at::Tensor& hidden);

// The same raw, for backends: weights are 0 where hidden, and what is not finite enters as it is in
// IEEE arithmetic for weights of 0 or more. `finite`: rows are known to be.
at::Tensor seen_matmul(const at::Tensor& weights, const at::Tensor& rows, const at::Tensor& hidden,
                       bool finite);

// at::scaled_dot_product_attention of (B, H, N, c), a mask as there or undefined. Where a query
// sees a key or a value that is not finite, its result is NaN.
at::Tensor seen_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const at::Tensor& mask, double dropout, bool causal,
                          std::optional<double> scale = {});

}  // namespace halcyon
