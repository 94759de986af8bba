// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "halcyon/sphere/healpix.h"

namespace halcyon::neighborhood {

// Which pixels of the HEALPix sphere attend to which: those within radius_deg (u_i . u_j >= cos R
// of the centres' unit vectors in float, and each pixel itself), or within so many rings of
// neighbours.
struct PixelWindow {
  int level = 0;
  std::optional<double> radius_deg;
  std::optional<int64_t> rings;
  healpix::Order order = healpix::Order::nest;
  std::optional<at::Tensor> region;  // int64 numbers in that order; none: the whole sphere
};

inline constexpr int kBlock = 16;  // pixels of a block: 4 x 4 of the sphere

// Of every block of 16 pixels that follow each other along the NEST curve, the pixels that any of
// them sees: disks around neighbours overlap, so the list is little longer than one pixel's own.
struct PixelLists {
  std::vector<int32_t> token;     // by place along the curve: its number in the tensors
  std::vector<int64_t> first;     // (blocks + 1): where the list of a block begins
  std::vector<int32_t> seen;      // tokens, in the order of the curve
  std::vector<uint16_t> seen_by;  // bit l: place 16 block + l sees it
  int64_t pairs = 0;              // (query, key) pairs

  int64_t blocks() const { return static_cast<int64_t>(first.size()) - 1; }
};

// Throws Error(argument) unless the region's numbers are distinct and pixels of the level.
void check_region(const char* operation, const PixelWindow& window);

// Built once for each window, whose region is then checked, and kept for the process (the last 16
// of them); operation is what messages call it. The relation is symmetric: the lists are those of
// who sees, too.
std::shared_ptr<const PixelLists> pixel_lists(
    const PixelWindow& window, const char* operation = "neighborhood_attention_healpix");

}  // namespace halcyon::neighborhood
