// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/sphere/healpix.h"

namespace halcyon {

struct HealpixNeighborhood {
  int64_t level = 0;  // 0..13
  // Exactly one: within this many degrees, in (0, 180], of the centre (HealDA's "disk", and each
  // pixel itself), or within so many steps to pixels that share an edge or a corner.
  std::optional<double> radius_deg;
  std::optional<int64_t> rings;
  healpix::Order order = healpix::Order::nest;  // or pad_xy
  // int64, distinct pixel numbers in that order: queries and keys are these, in this sequence.
  // Rings are those of the whole sphere.
  std::optional<at::Tensor> region;
};

// Neighborhood attention on the sphere: each pixel attends to the pixels around it. q (B, X, H, d),
// k (B, X, G, d), v (B, X, G, e) with X = 12 * 4^level or the length of region -> (B, X, H, e) in
// the dtype of q. Types, memory layouts and derivatives as na1d. Cost and memory are linear in X;
// which pixels see which is computed once for each window and kept.
at::Tensor neighborhood_attention_healpix(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const HealpixNeighborhood& window,
                                          std::optional<double> scale = {});

struct HealpixNeighborhoodStats {
  int64_t pixels, pairs, computed;  // computed: pairs that the blocks of 16 queries work on
  double useful_share;              // pairs / computed
};
HealpixNeighborhoodStats neighborhood_attention_healpix_stats(const HealpixNeighborhood& window);

}  // namespace halcyon
