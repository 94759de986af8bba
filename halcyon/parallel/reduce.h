// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "halcyon/parallel/group.h"

// Sums over the ranks of a group. Every rank calls them with the same shape, dtype and tag, agreed
// before (agreement.h). Addition is in rank order whatever the timing, so that every rank gets the
// same bits at every call; half types are added in float32 and rounded once. Groups of another
// backend than gloo sum as that backend does.
namespace halcyon::parallel {

// Differentiable any number of times; the backward is the sum of the cotangents over the ranks.
at::Tensor sum_over_ranks(const at::Tensor& x, const Group& group, const std::string& operation,
                          int64_t tag);

// x becomes the sum, divided by divisor before it is rounded; contiguous, no graph. At most 16 KiB
// go to every rank at once; of more, each rank sums one chunk and then sends it to the others,
// 2 (N - 1) / N times the bytes of x from each.
void sum_in_place(const at::Tensor& x, const Group& group, const std::string& operation,
                  int64_t tag, double divisor = 1);

}  // namespace halcyon::parallel
