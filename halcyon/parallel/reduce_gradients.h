// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// The .grad of these parameters, in place, becomes over the ranks of the group: op "sum" their sum;
// "mean" the sum of weight * grad / the sum of weight. A gradient that some ranks lack counts as
// zero and is made there; one that all lack stays away. A parameter that is named twice counts
// once. One agreement, then one sum for each 25 MiB. Error(argument) on every rank where the lists,
// op or dtypes differ.
void reduce_gradients(const std::vector<at::Tensor>& parameters, const Group& group = {},
                      const std::string& op = "sum", double weight = 1.0);

}  // namespace halcyon::parallel
