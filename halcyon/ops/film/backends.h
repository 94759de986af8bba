// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "halcyon/ops/cpu_level.h"

// The raw compute of film_tokenizer; shapes are checked by the caller.
namespace halcyon::film_detail {

// The operator's floating inputs in the order obs, float_metadata, weight1, bias1, norm_weight,
// norm_bias, weight2, bias2, then the tables; one id tensor for each table.
enum Position { kObs, kMeta, kWeight1, kBias1, kNormWeight, kNormBias, kWeight2, kBias2, kTables };

struct Inputs {
  std::vector<at::Tensor> floats, ids;
  double eps;

  // Sums are kept in float, in double when any input is double.
  at::ScalarType accumulate() const;
};

// What the composition of ATen operators would return: the promoted type of the observations and
// the parameters, or of the observations and autocast's type where that is on.
at::ScalarType result_type(const Inputs& in);

// ATen operators, differentiable by themselves, on any device: also the readable reference.
at::Tensor composed(const Inputs& in);

// Fused by blocks of observations, nothing kept for the backward. Throws Error(argument) for an id
// outside its table.
at::Tensor forward_cpu(const Inputs& in, CpuLevel level = cpu_level());
// Gradients of all floats, in their order and types; without of_metadata theirs has no rows.
std::vector<at::Tensor> backward_cpu(const Inputs& in, const at::Tensor& grad_out,
                                     bool of_metadata = true, CpuLevel level = cpu_level());

// Throws Error(argument) unless every id lies in its table.
void check_ids(const Inputs& in);

}  // namespace halcyon::film_detail
