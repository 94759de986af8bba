// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/nn/self_attention.h"
#include "halcyon/ops/neighborhood/sphere/neighborhood_healpix.h"

namespace halcyon {

// "NAME:R" with a radius in degrees, in (0, 180], for the disks, and "NAME:k" with a number of
// rings for the others; "-nest" says that the tokens are in NEST order, else they are in pad_xy.
// The "flex-" names are HealDA's old ones.
inline constexpr const char* kHealpixBackends[] = {"disk",           "disk-nest", "flex-disk",
                                                   "flex-disk-nest", "rings",     "rings-nest"};

// SelfAttention in which each token sees the HEALPix pixels around its own only (HealDA v2's disk
// attention): the same projections, norms, keys and dropouts. The tokens are those of
// options.grid or a whole sphere, whose level their number tells.
class HealpixSelfAttentionImpl : public SelfAttentionImpl {
 public:
  // Throws Error(argument) for a name without a valid radius or number of rings, and
  // Error(unsupported) for is_causal and for a name of another order than that of the tokens.
  HealpixSelfAttentionImpl(std::string_view name, const SpatialAttentionOptions& options);

 protected:
  // Throws Error(argument) unless x has as many tokens as the grid, without one 12 * 4^level, and
  // Error(unsupported) for an attn_mask.
  void check_call(const at::Tensor& x, const at::Tensor& attn_mask) const override;
  at::Tensor mix(const at::Tensor& qkv, const at::Tensor& attn_mask) const override;

 private:
  HealpixNeighborhood window_;     // without a grid, the level is the call's
  std::optional<int64_t> tokens_;  // of the grid
};

}  // namespace halcyon
