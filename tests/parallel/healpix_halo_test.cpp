// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/healpix_halo.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "halcyon/sphere/healpix.h"

namespace halcyon::parallel {
namespace {

constexpr int kLevel = 2;
constexpr int64_t kWidth = 4;

int64_t number(const FacePixel& pixel) {
  return (pixel.face * kWidth + pixel.row) * kWidth + pixel.col;
}

bool touch(const FacePixel& a, const FacePixel& b) {
  const auto around =
      healpix::neighbours(kLevel, at::tensor({number(a)}, at::kLong), healpix::Order::pad_xy);
  return (around == number(b)).any().item<bool>();
}

FacePixel nearest(int64_t face, int64_t row, int64_t col) {
  return {face, std::clamp<int64_t>(row, 0, kWidth - 1), std::clamp<int64_t>(col, 0, kWidth - 1)};
}

TEST(HealpixHalo, StandsNextToTheFaceOnTheSphere) {
  for (int64_t face = 0; face < kFaces; ++face) {
    for (int64_t row = -1; row <= kWidth; ++row) {
      for (int64_t col = -1; col <= kWidth; ++col) {
        const bool inside = row >= 0 && row < kWidth && col >= 0 && col < kWidth;
        if (inside) continue;
        const auto pixel = halo_pixel(face, row, col, kWidth);
        EXPECT_TRUE(touch(nearest(face, row, col), pixel.first))
            << "face " << face << ", row " << row << ", col " << col;
        if (pixel.has_second) {
          EXPECT_TRUE(touch(nearest(face, row, col), pixel.second));
        }
      }
    }
  }
}

TEST(HealpixHalo, MeansStandOnTheDiagonalsWhereThreeFacesMeet) {
  for (int64_t face = 0; face < kFaces; ++face) {
    for (int64_t row = -kWidth; row < 2 * kWidth; ++row) {
      for (int64_t col = -kWidth; col < 2 * kWidth; ++col) {
        if (row >= 0 && row < kWidth && col >= 0 && col < kWidth) continue;
        const auto pixel = halo_pixel(face, row, col, kWidth);
        for (const auto& one : {pixel.first, pixel.second}) {
          EXPECT_TRUE(0 <= one.face && one.face < kFaces && 0 <= one.row && one.row < kWidth &&
                      0 <= one.col && one.col < kWidth);
        }
        const bool corner = (row < 0 && col < 0) || (row >= kWidth && col >= kWidth);
        EXPECT_EQ(pixel.has_second, 4 <= face && face < 8 && corner && row == col);
      }
    }
  }
}

}  // namespace
}  // namespace halcyon::parallel
