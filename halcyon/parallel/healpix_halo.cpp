// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/healpix_halo.h"

namespace halcyon::parallel {
namespace {

// Faces come in three belts of four, counted eastwards.
constexpr int64_t kNorth = 0, kEquator = 4, kSouth = 8;

int64_t in_belt(int64_t belt, int64_t east) {
  return belt + (east % 4 + 4) % 4;
}

// Rows and columns beyond the border, as they count on a neighbour that is not turned.
int64_t wrapped(int64_t i, int64_t n) {
  return i < 0 ? i + n : i < n ? i : i - n;
}

// Neighbours across the pole are turned: by a quarter at an edge, by a half at the corner.
HaloPixel north(int64_t k, int64_t row, int64_t col, int64_t n) {
  const auto i = wrapped(row, n), j = wrapped(col, n);
  if (row < 0 && col < 0) return {{in_belt(kNorth, k + 2), -1 - row, -1 - col}};
  if (row < 0 && col < n) return {{in_belt(kNorth, k + 1), col, -1 - row}};
  if (row < 0) return {{in_belt(kNorth, k + 1), i, j}};
  if (row < n && col < 0) return {{in_belt(kNorth, k + 3), -1 - col, row}};
  if (row < n) return {{in_belt(kEquator, k + 1), i, j}};
  if (col < 0) return {{in_belt(kNorth, k + 3), i, j}};
  if (col < n) return {{in_belt(kEquator, k), i, j}};
  return {{in_belt(kSouth, k), i, j}};
}

HaloPixel south(int64_t k, int64_t row, int64_t col, int64_t n) {
  const auto i = wrapped(row, n), j = wrapped(col, n);
  if (row >= n && col >= n) return {{in_belt(kSouth, k + 2), n - 1 - i, n - 1 - j}};
  if (row >= n && col >= 0) return {{in_belt(kSouth, k + 3), col, n - 1 - i}};
  if (row >= n) return {{in_belt(kSouth, k + 3), i, j}};
  if (row >= 0 && col >= n) return {{in_belt(kSouth, k + 1), n - 1 - j, row}};
  if (row >= 0) return {{in_belt(kEquator, k), i, j}};
  if (col >= n) return {{in_belt(kSouth, k + 1), i, j}};
  if (col >= 0) return {{in_belt(kEquator, k + 1), i, j}};
  return {{in_belt(kNorth, k), i, j}};
}

// Nothing is turned, but two corners have no face of their own: there the rows of one neighbour and
// the columns of the other go on, and meet on the diagonal.
HaloPixel equator(int64_t k, int64_t row, int64_t col, int64_t n) {
  const auto above = in_belt(kNorth, k), left = in_belt(kNorth, k + 3),
             below = in_belt(kSouth, k + 3), right = in_belt(kSouth, k);
  const auto i = wrapped(row, n), j = wrapped(col, n);
  if (row < 0 && col < 0) {
    if (row < col) return {{above, i, col - row - 1}};
    if (col < row) return {{left, row - col - 1, j}};
    return {{above, i, 0}, true, {left, 0, j}};
  }
  if (row >= n && col >= n) {
    if (i > j) return {{below, i, n - i + j}};
    if (j > i) return {{right, n - j + i, j}};
    return {{below, i, n - 1}, true, {right, n - 1, j}};
  }
  if (row < 0) return {{col < n ? above : in_belt(kEquator, k + 1), i, j}};
  if (row >= n) return {{col >= 0 ? below : in_belt(kEquator, k + 3), i, j}};
  return {{col < 0 ? left : right, i, j}};
}

}  // namespace

HaloPixel halo_pixel(int64_t face, int64_t row, int64_t col, int64_t n) {
  if (face < kEquator) return north(face - kNorth, row, col, n);
  if (face < kSouth) return equator(face - kEquator, row, col, n);
  return south(face - kSouth, row, col, n);
}

}  // namespace halcyon::parallel
