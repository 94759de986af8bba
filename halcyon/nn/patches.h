// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/sphere/region.h"

namespace halcyon {

// How coarse HEALPix pixels (the tokens) are made of patches of p x p fine ones, both in pad_xy
// order, on the whole sphere or on a region of coarse pixels. Rows and columns of a patch are those
// of its face.
class PatchGrid {
 public:
  // region holds coarse pixels at level_coarse; without one, the whole sphere.
  PatchGrid(int64_t level_fine, int64_t level_coarse, std::optional<Region> region = std::nullopt);

  int64_t patch() const { return patch_; }
  int64_t coarse_size() const { return coarse_size_; }
  int64_t fine_size() const { return coarse_size_ * patch_ * patch_; }
  // Longitudes of the coarse centres, degrees, float64.
  const at::Tensor& lon() const { return lon_; }

  // (B, C, T, X_fine) -> (B, T, X, C * p * p), the last axis ordered (channel, row, column).
  at::Tensor gather(const at::Tensor& x) const;
  // The inverse, with C = the last axis / p^2.
  at::Tensor scatter(const at::Tensor& patches) const;

 private:
  bool whole_sphere() const { return !children_.defined(); }

  int64_t patch_ = 1, coarse_side_ = 1, coarse_size_ = 0;
  at::Tensor lon_;
  // Fine position of every (token, child) and its inverse; undefined on the whole sphere, where the
  // patches are a plain rearrangement. They follow the data to its device.
  mutable at::Tensor children_, inverse_;
};

}  // namespace halcyon
