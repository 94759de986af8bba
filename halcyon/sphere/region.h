// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "halcyon/sphere/latlon.h"

namespace halcyon {

// Degrees. Eastwards from west to east, so west > east crosses the date line (or lon 0);
// east - west >= 360 is every longitude.
struct Box {
  double west, east, south, north;
};

// Some of the HEALPix pixels of one level, ascending in pad_xy order; all of them is a region too.
// A value: copies share the list of pixels.
class Region {
 public:
  // The whole sphere, level 0..13 (beyond, the list would not fit in memory).
  static Region global(int level);
  // Error(argument) unless the pixels are ascending, unique and on the sphere, and there is one.
  static Region of_pixels(int level, const std::vector<int64_t>& pixels);
  static Region of_pixels(int level, const at::Tensor& pixels);
  // Every pixel of which any point, border included, lies in the box. Exact (closed form, no
  // sampling) up to 1e-10 degrees, by which a pixel may be let in too many.
  static Region touching(int level, const Box& box);
  // Every pixel that touches a cell of the grid where mask, bool (rows, columns) or (size,), is
  // set.
  static Region touching(int level, const LatLonGrid& grid, const at::Tensor& mask);

  int level() const { return level_; }
  bool is_global() const;
  int64_t size() const { return pixels_.numel(); }
  const at::Tensor& pixels() const { return pixels_; }  // int64 (size,)

  // All descendants `up` levels finer.
  Region refined(int up) const;
  // Where in the region each pixel stands, -1 when it is not there; int64 of the same shape.
  at::Tensor index_of(const at::Tensor& pixels) const;
  // int64 (size, 4^up): where in refined(up) the children of each pixel stand, row-major over their
  // (row, col) inside the pixel: the view of a 2^up x 2^up patch.
  at::Tensor children_index(int up) const;
  // (lon, lat) of the pixels' centres, float64 degrees (size,).
  std::tuple<at::Tensor, at::Tensor> centres() const;

  bool operator==(const Region& other) const;

 private:
  Region(int level, at::Tensor pixels) : level_(level), pixels_(std::move(pixels)) {}

  int level_;
  at::Tensor pixels_;
};

}  // namespace halcyon
