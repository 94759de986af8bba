// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/backends.h"
#include "halcyon/ops/neighborhood/sphere/pixel_lists.h"

// The raw compute of neighborhood_attention_healpix; arguments are checked by the caller.
namespace halcyon::neighborhood {

struct SphereInputs {
  at::Tensor query, key, value;  // (B, X, H, d), (B, X, G, d), (B, X, G, e)
  const PixelLists* lists;
  double scale;
  // Where the queries are only some of the keys' pixels (part_lists.h): the keys', and lists are
  // the queries'.
  const PixelLists* lists_of_keys = nullptr;
};

// Dense attention under a mask, by ATen operators: differentiable in every mode, on any device;
// memory grows with X^2.
Output sphere_reference(const SphereInputs& in);

// Blocks of 16 pixels against the list of what they see, gathered: linear in X.
Output sphere_forward(const SphereInputs& in, CpuLevel level = cpu_level());
// delta is delta_of().
Gradients sphere_backward(const SphereInputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                          const at::Tensor& delta, CpuLevel level = cpu_level());

}  // namespace halcyon::neighborhood
