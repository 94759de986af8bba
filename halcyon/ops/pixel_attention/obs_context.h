// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/ops/pixel_attention/packing.h"

namespace halcyon {

// The observations of one model call, sorted by pixel: pixel p of the P = B*T*X has rows
// cu_seqlens_k[p] .. cu_seqlens_k[p + 1].
struct ObsContext {
  at::Tensor obs;             // (N,) normalised values
  at::Tensor float_metadata;  // (N, M) features
  at::Tensor obs_type;        // (N,) int32 or int64, as the next two
  at::Tensor channel;         // (N,)
  at::Tensor platform;        // (N,)
  at::Tensor cu_seqlens_k;    // (P + 1,) int32
  int64_t max_seqlen_k = 0;   // the largest number of observations in a pixel
  std::optional<PixelGroupMap> group_map;

  ObsContext() = default;
  // The members in their order. Throws Error(argument) unless the offsets have rank 1.
  ObsContext(at::Tensor values, at::Tensor metadata, at::Tensor types, at::Tensor channels,
             at::Tensor platforms, at::Tensor offsets, int64_t longest,
             std::optional<PixelGroupMap> map = {});

  // A moved copy; dtype casts the floating tensors only.
  ObsContext to(std::optional<at::Device> device, std::optional<at::ScalarType> dtype = {},
                bool non_blocking = true) const;
  ObsContext to(at::ScalarType dtype) const { return to(std::nullopt, dtype); }
};

// Sorts the observations by flat_idx (N,), values ((b*T) + t)*X + pixel in [0, total_pixels),
// stably. obs (N,) and float_metadata (N, M) floating, obs_type, channel, platform (N,) int32 or
// int64. Differentiable in obs and float_metadata.
ObsContext prepare_obs_context(const at::Tensor& obs, const at::Tensor& float_metadata,
                               const at::Tensor& obs_type, const at::Tensor& channel,
                               const at::Tensor& platform, const at::Tensor& flat_idx,
                               int64_t total_pixels, bool build_group_map = true,
                               double group_thresh_mult = 2.0);

}  // namespace halcyon
