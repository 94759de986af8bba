// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "halcyon/base/netcdf.h"
#include "halcyon/sphere/healpix.h"
#include "halcyon/sphere/region.h"

// How HEALPix grids stand in NetCDF files: by the grid mapping "healpix" of CF-1.13.
namespace halcyon::state {

// The names that define_healpix takes.
inline constexpr const char* kPixelDimension = "pixel";
inline constexpr const char* kHealpixMapping = "crs";

// Defines and writes the dimension and coordinate pixel (the pixels' numbers in nested order,
// ascending), the coordinates lat and lon of the centres, and the grid mapping crs. Returns, for
// each pixel of the file, where it stands in the region.
at::Tensor define_healpix(NetcdfWriter& file, const Region& region);

// The grid of one variable, as its grid mapping and its coordinates tell it.
struct HealpixMapping {
  int level = 0;
  healpix::Order order = healpix::Order::nest;
  int64_t axis = 0;   // which of the variable's dimensions are the pixels
  std::string index;  // the variable that numbers them; empty: all pixels in order
};

// Nothing when the variable names no HEALPix grid mapping. Besides CF-1.13's attributes those of
// older files are known: healpix_nside and healpix_order of the mapping (CDO, easygems), and
// healpix_level and healpix_order of the coordinate (Halcyon before it wrote a mapping).
// Error(input) when they contradict each other, or for an order or a dimension that cannot be told.
std::optional<HealpixMapping> healpix_mapping(const NetcdfReader& file,
                                              const std::string& variable);

struct HealpixPixels {
  Region region;
  at::Tensor places;  // where in the file each of the region's pixels stands, int64
};

// Error(input) for numbers that are repeated or not on the sphere.
HealpixPixels read_healpix(const NetcdfReader& file, const HealpixMapping& mapping, int64_t size);

// Whether a variable numbers the pixels of others and so is no field.
bool is_healpix_index(const NetcdfReader& file, const std::string& variable);

}  // namespace halcyon::state
