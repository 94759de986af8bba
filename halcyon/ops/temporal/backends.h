// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/ops/cpu_level.h"
#include "halcyon/ops/temporal/form.h"

// The raw compute of temporal_attention; arguments are checked by the caller.
namespace halcyon::temporal_detail {

struct Inputs {
  at::Tensor q, k, v;  // (B, T, X, H, d)
  bool linear, causal;
  std::optional<int64_t> window;
  std::optional<at::Tensor> cos, sin;  // (T, d)
};

struct Gradients {
  at::Tensor joint;    // (B, T, X, 3, H, d)
  at::Tensor q, k, v;  // views of it
};

// ATen operators, differentiable by themselves, on any device: also the readable reference.
at::Tensor composed(const Inputs& in);

// Each pixel's frames by themselves, in the best form or this one; the backward computes the
// weights again.
at::Tensor forward_cpu(const Inputs& in, CpuLevel level = cpu_level(),
                       std::optional<Form> form = {});
Gradients backward_cpu(const Inputs& in, const at::Tensor& grad_out, CpuLevel level = cpu_level(),
                       std::optional<Form> form = {});

}  // namespace halcyon::temporal_detail
