// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>
#include <variant>
#include <vector>

#include "halcyon/sphere/latlon.h"
#include "halcyon/sphere/region.h"
#include "halcyon/sphere/sparse_matrix.h"

// Regridding of scalars as sparse matrices. A field on a LatLonGrid is its (rows, columns)
// flattened; a field on a Region has one value a pixel, in the region's order. Wind components may
// be regridded as scalars away from the poles only.
namespace halcyon {

// Rows: the points (lon, lat in degrees, 1-D, equally long). Linear in latitude and in longitude.
// Between the outermost row and the pole of a periodic grid: towards the mean of that row. Points
// in the half cell outside a regional grid's edge take the edge's values, those beyond get NaN.
SparseMatrix bilinear_to_points(const LatLonGrid& grid, const at::Tensor& lon,
                                const at::Tensor& lat);

// HEALPix ring interpolation: the two nearest pixels on the ring above and on the ring below,
// linear in longitude and in colatitude; at the poles towards the mean of the four pixels there.
// The error falls with the square of the pixel's width, within a few rings of the poles only with
// the width. Pixels that the region lacks are left out and the weights of the others made to sum to
// one; a point with none of the four takes the pixel that it lies in, and NaN when the region lacks
// that too.
SparseMatrix bilinear_to_points(const Region& region, const at::Tensor& lon, const at::Tensor& lat);

using Grid = std::variant<LatLonGrid, Region>;
int64_t size_of(const Grid& grid);

// bilinear_to_points at the points of `to`: the grid's points or the pixels' centres.
SparseMatrix bilinear(const Grid& from, const Grid& to);

// First order: each output is the mean of the inputs over the part of its cell that they cover,
// weighted by the areas of overlap, NaN when that is nothing. The areas are exact up to rounding
// (HEALPix's projection is equal-area and the borders of pixels, parallels and meridians are
// straight lines in it), so integrals over cells that are wholly covered are conserved to about
// 1e-12.
SparseMatrix conservative(const Grid& from, const Grid& to);

// By the name used in configurations: "bilinear" or "conservative"; Error(configuration) otherwise.
SparseMatrix make_regridder(std::string_view method, const Grid& from, const Grid& to);
std::vector<std::string_view> regridder_names();

}  // namespace halcyon
