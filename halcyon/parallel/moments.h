// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// Count, mean and sum of squares about the mean of x over some of its axes, which stay with size
// one; both in float64. Without a graph.
struct Moments {
  int64_t count = 0;
  at::Tensor mean, squares;
};

// Those of one rank's x, and x about a number near its mean, from which all else is computed, so
// that a mean that is large against the spread costs no digits.
struct LocalMoments : Moments {
  at::Tensor shift, centred;  // x - shift; of x's dtype, float32 or float64
};

LocalMoments local_moments(const at::Tensor& x, at::IntArrayRef axes);

// Those of all ranks' parts together, merged in rank order (Chan, Golub and LeVeque 1983): the same
// bits on every rank. counts: what each rank has, known to all; one message to every rank.
Moments moments_over_ranks(const Moments& mine, const std::vector<int64_t>& counts,
                           const Group& group, const std::string& operation, int64_t tag);

}  // namespace halcyon::parallel
