// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/sphere/region.h"

namespace halcyon {

// Fine fields x (B, C, T, X_fine) as patches of the tokens, (B, T, X, C * p * p), the last axis
// ordered (channel, row, column). On the whole sphere, where X = 12 * side^2, that is a plain
// rearrangement; elsewhere children holds the fine position of every (token, child).
at::Tensor patch_gather(const at::Tensor& x, int64_t side, int64_t patch,
                        const std::optional<at::Tensor>& children = std::nullopt);
// The inverse, with C = the last axis / p^2; inverse holds the inverse permutation of children.
at::Tensor patch_scatter(const at::Tensor& patches, int64_t side, int64_t patch,
                         const std::optional<at::Tensor>& inverse = std::nullopt);

// How coarse HEALPix pixels (the tokens) are made of patches of p x p fine ones, both in pad_xy
// order, on the whole sphere or on a region of coarse pixels. Rows and columns of a patch are those
// of its face.
class PatchGrid {
 public:
  // region holds coarse pixels at level_coarse; without one, the whole sphere.
  PatchGrid(int64_t level_fine, int64_t level_coarse, std::optional<Region> region = std::nullopt);

  int64_t patch() const { return patch_; }
  int64_t side() const { return coarse_side_; }
  int64_t coarse_size() const { return coarse_size_; }
  int64_t fine_size() const { return coarse_size_ * patch_ * patch_; }
  // Longitudes of the coarse centres, degrees, float64.
  const at::Tensor& lon() const { return lon_; }

  // Those of patch_gather() and patch_scatter(); undefined on the whole sphere.
  const at::Tensor& children() const { return children_; }
  const at::Tensor& inverse() const { return inverse_; }

  at::Tensor gather(const at::Tensor& x) const;
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
