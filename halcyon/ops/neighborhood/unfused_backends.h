// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "halcyon/ops/cpu_level.h"
#include "halcyon/ops/neighborhood/window.h"

// The raw compute of the unfused operators, heads first; arguments are checked by the caller. The
// three products are bilinear, and the derivatives of each are the other two.
namespace halcyon::neighborhood {

// attn (B, H, *, W + N) = x (B, H, *, c) . the y (B, H, *, c) of its window + bias (H, 2 K0 - 1,
// ...), then x . more (B, H, N, c). Slots that a query does not use hold `unused`.
at::Tensor window_scores(const at::Tensor& x, const at::Tensor& y,
                         const std::optional<at::Tensor>& bias,
                         const std::optional<at::Tensor>& more, const std::vector<Axis>& axes,
                         double unused, CpuLevel level = cpu_level());

// (B, H, *, c) = attn . the y of its window, + attn . more. Slots that a query does not use are not
// read, here and below.
at::Tensor window_sums(const at::Tensor& attn, const at::Tensor& y,
                       const std::optional<at::Tensor>& more, const std::vector<Axis>& axes,
                       CpuLevel level = cpu_level());

// The sums of attn . x over the queries that see a key, (B, H, *, c), and over all of them for
// additional keys, (B, H, N, c).
struct KeySums {
  at::Tensor keys, more;
};
KeySums window_key_sums(const at::Tensor& attn, const at::Tensor& x, const std::vector<Axis>& axes,
                        CpuLevel level = cpu_level());

// (H, 2 K0 - 1, ...): the sums of attn over the pairs of each relative position; no axis is causal.
at::Tensor window_bias_sums(const at::Tensor& attn, const std::vector<Axis>& axes);

// window_scores and window_sums by ATen operators over the windows written out: on any device,
// differentiable by themselves in every mode.
at::Tensor reference_scores(const at::Tensor& x, const at::Tensor& y,
                            const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& more, const std::vector<Axis>& axes,
                            double unused);
at::Tensor reference_sums(const at::Tensor& attn, const at::Tensor& y,
                          const std::optional<at::Tensor>& more, const std::vector<Axis>& axes);

}  // namespace halcyon::neighborhood
