// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/ops/neighborhood/neighborhood.h"
#include "halcyon/ops/neighborhood/sphere/neighborhood_healpix.h"
#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// halcyon::na1d to na3d (neighborhood.h) of tokens that are cut over the ranks along one spatial
// axis, shard_dim (1 to the number of spatial axes); query, key and value alike. Any window, also
// one wider than a rank's part, and parts without tokens. Keys and values of other ranks travel
// once, together; what a rank computes is its rows and those that its windows reach
// (window_rows.h). rpb and additional tokens are whole on every rank. The windows must fit the
// global axis.
AttentionOutput na1d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options, int64_t shard_dim = 1,
                     const Group& group = {});
AttentionOutput na2d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options, int64_t shard_dim = 1,
                     const Group& group = {});
AttentionOutput na3d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options, int64_t shard_dim = 1,
                     const Group& group = {});

// halcyon::neighborhood_attention_healpix of all pixels of a level, (B, X_local, H, d), cut over
// the ranks into consecutive runs in the window's order; the window has no region. Keys and values
// of other ranks' pixels travel once, together. Which pixels they are is worked out at the first
// call for a window and a cut, and kept.
at::Tensor neighborhood_attention_healpix(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const HealpixNeighborhood& window,
                                          std::optional<double> scale = {},
                                          const Group& group = {});

}  // namespace halcyon::parallel
