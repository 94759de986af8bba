// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/backends.h"

namespace halcyon::neighborhood {

enum class Backend : int64_t { tiled, gemm, reference };

// Axes as operators take them: six numbers each.
std::vector<int64_t> numbers_of(const std::vector<Axis>& axes);
std::vector<Axis> axes_of(at::IntArrayRef numbers);

// Through torch's dispatcher (halcyon::_neighborhood), where autograd, tracing and counters stand.
Output dispatched(const Inputs& in, Backend backend);

// The same of the unfused operators (unfused_backends.h); unused slots hold -infinity.
at::Tensor dispatched_scores(const at::Tensor& query, const at::Tensor& key,
                             const std::optional<at::Tensor>& bias,
                             const std::optional<at::Tensor>& more, const std::vector<Axis>& axes);
at::Tensor dispatched_sums(const at::Tensor& attn, const at::Tensor& value,
                           const std::optional<at::Tensor>& more, const std::vector<Axis>& axes);

}  // namespace halcyon::neighborhood
