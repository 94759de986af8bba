// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/nn/projected_attention.h"
#include "halcyon/ops/neighborhood/sphere/neighborhood_healpix.h"

namespace halcyon {

// neighborhood_attention_healpix, with weights dropped at this rate (k and v then have the heads of
// q). Above 0 all X * X weights are in memory.
at::Tensor attend_healpix(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const HealpixNeighborhood& window, double scale, double dropout);

struct NeighborhoodAttentionHEALPixOptions {
  int64_t dim = 0, num_heads = 1;
  HealpixNeighborhood window = {};
  bool qkv_bias = true;
  std::optional<double> qk_scale = {};
  double attn_drop = 0, proj_drop = 0;
};

// Each pixel of the sphere, or of a region, attends to the pixels around it, between two
// projections. Keys qkv.*, proj.*; the region is not saved. attn_drop in training as
// attend_healpix.
class NeighborhoodAttentionHEALPixImpl : public ProjectedAttentionImpl {
 public:
  explicit NeighborhoodAttentionHEALPixImpl(NeighborhoodAttentionHEALPixOptions options);

  // x (B, X, dim) -> the same.
  at::Tensor forward(const at::Tensor& x);

 private:
  HealpixNeighborhood window_;
};
TORCH_MODULE(NeighborhoodAttentionHEALPix);

}  // namespace halcyon
