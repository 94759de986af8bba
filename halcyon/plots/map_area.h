// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "halcyon/sphere/regrid.h"

// What part of the sphere a map shows, and how.
namespace halcyon::plots {

struct MapArea {
  Box box;             // unwrapped: east > west
  bool polar = false;  // polar stereographic about the middle meridian
  bool south = false;  // hemisphere of the polar projection
  double lower_left_lon, lower_left_lat, upper_right_lon, upper_right_lat;
  double aspect;  // height over width

  double middle_lon() const { return (box.west + box.east) / 2; }
};

// The smallest box, edges included, that holds all points; lon and lat in degrees, float64.
Box bounding_box(const at::Tensor& lon, const at::Tensor& lat);

// The box made at least 4 degrees wide and high. Boxes of one hemisphere's middle and high
// latitudes are polar stereographic, round the pole where they are wide.
MapArea map_area(Box box);

// 10, 20 or more degrees (or fractions) between the lines of a grid over a span.
double grid_increment(double span);

}  // namespace halcyon::plots
