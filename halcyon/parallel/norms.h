// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/parallel/group.h"

// Norms of a tensor that is cut over the ranks of a group along one axis into parts of any lengths,
// also zero: what torch.nn.functional computes of the whole, on this rank's part. Mean and variance
// are merged of the ranks' counts, means and centred sums of squares, and keep their digits where
// the mean is large against the spread; half types are computed in float32. Differentiable any
// number of times. weight, bias and running statistics are whole and the same on every rank, of x's
// dtype or float32; their gradients are this rank's contribution.
//
// One agreement a call, then one message to every rank; a backward is one sum over the ranks.
// Error(argument) on every rank where the ranks' arguments differ or do not fit.
namespace halcyon::parallel {

// x: (N, C, *). dim: the sharded axis, not the channels'.
at::Tensor group_norm(const at::Tensor& x, int64_t num_groups,
                      const std::optional<at::Tensor>& weight = {},
                      const std::optional<at::Tensor>& bias = {}, double eps = 1e-5,
                      int64_t dim = -2, const Group& group = {});

// normalized_shape, weight and bias are global: each rank takes its own part of them if dim is one
// of the normalized axes.
at::Tensor layer_norm(const at::Tensor& x, at::IntArrayRef normalized_shape,
                      const std::optional<at::Tensor>& weight = {},
                      const std::optional<at::Tensor>& bias = {}, double eps = 1e-5,
                      int64_t dim = -2, const Group& group = {});

// x: (N, C) or (N, C, *), sharded along any axis or axes but the channels: only how many values a
// rank has counts. The running statistics, if there are any, are updated in place when training,
// with the variance of all ranks' values without bias, the same on every rank. momentum: torch's;
// where a module has none, it gives 1 / its number of batches.
at::Tensor batch_norm(const at::Tensor& x, const std::optional<at::Tensor>& running_mean,
                      const std::optional<at::Tensor>& running_var,
                      const std::optional<at::Tensor>& weight = {},
                      const std::optional<at::Tensor>& bias = {}, bool training = false,
                      std::optional<double> momentum = 0.1, double eps = 1e-5,
                      const Group& group = {});

}  // namespace halcyon::parallel
