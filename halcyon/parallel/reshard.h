// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "halcyon/parallel/group.h"

// A whole tensor to its parts and back, and one cut of a tensor to another. Collective,
// differentiable any number of times, the backward the exact adjoint; of any dtype, strides and
// device that the group moves; parts may be uneven or empty. The forward is bitwise what one
// process has. Error(argument) on every rank where the tensors do not fit together.
namespace halcyon::parallel {

// This rank's part of x, which is whole and the same on every rank: the rule of torch.tensor_split
// along dim. The backward gathers the parts: every rank has the whole gradient.
at::Tensor shard(const at::Tensor& x, int64_t dim = -2, const Group& group = {});

// The whole of the parts along dim, on every rank. The backward takes this rank's part of its own
// cotangent, right when every rank goes on to compute the same; with sum_grad the sum, in rank
// order, of all ranks' cotangents of this part, right whatever each computes.
at::Tensor gather(const at::Tensor& x, int64_t dim = -2, const Group& group = {},
                  bool sum_grad = false);

// (b, t_local, X, ...) -> (b, T, x_local, ...): frames that are cut over the ranks become whole,
// and the pixels are cut by the rule of torch.tensor_split. One exchange.
at::Tensor shard_x(const at::Tensor& x, const Group& group = {});

// (b, T, x_local, ...) -> (b, t_local, X, ...): the inverse, the frames cut by that rule.
at::Tensor shard_t(const at::Tensor& x, const Group& group = {});

}  // namespace halcyon::parallel
