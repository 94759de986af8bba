// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "halcyon/parallel/group.h"
#include "halcyon/parallel/moments.h"

namespace halcyon::parallel {

// Over what values are standardized: these axes of x, of all ranks' parts.
struct Population {
  Group group;
  std::string operation;
  int64_t tag = 0;
  std::vector<int64_t> axes;
};

// (x - mean) / sqrt(variance + eps) of this rank's x, float32 or float64, with the moments of all
// ranks' x, of which local holds this rank's (its centred is overwritten). Differentiable any
// number of times; each backward is one sum over the ranks of three numbers for each mean. Where x
// needs a gradient on one rank it must on all.
at::Tensor standardize(const at::Tensor& x, const LocalMoments& local, const Moments& all,
                       double eps, const Population& population);

}  // namespace halcyon::parallel
