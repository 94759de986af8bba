// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

// Which pixels stand around a face of the HEALPix sphere, faces of n x n in the model's pad_xy
// order (as PhysicsNeMo's HEALPixPadding lays them, physicsnemo/nn/module/hpx).
namespace halcyon::parallel {

inline constexpr int64_t kFaces = 12;

struct FacePixel {
  int64_t face, row, col;
};

// What stands at (row, col) of a face continued beyond its borders, both in [-n, 2 n) and not both
// inside: one pixel, or the mean of two where only three faces meet.
struct HaloPixel {
  FacePixel first;
  bool has_second = false;
  FacePixel second = {};
};

HaloPixel halo_pixel(int64_t face, int64_t row, int64_t col, int64_t n);

}  // namespace halcyon::parallel
