// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>
#include <vector>

namespace halcyon {

// A rectilinear latitude-longitude grid: every latitude (rows, slow) with every longitude (columns,
// fast). Each axis is strictly monotonic in either direction, evenly spaced or not (Gaussian);
// longitudes may step over 360 or the date line once. Global in longitude ("periodic") when the gap
// from the last meridian to the first is like the other gaps, else regional.
class LatLonGrid {
 public:
  // Degrees. Error(argument) for an empty or non-monotonic axis, |lat| > 90, values that are not
  // finite, or longitudes that go round more than once.
  LatLonGrid(std::vector<double> lat, std::vector<double> lon);

  // Evenly spaced and global: rows from north to south, with rows on the poles (721 x 1440 for 0.25
  // degrees) or half a step off them; meridians from 0 eastwards.
  static LatLonGrid regular(int64_t rows, int64_t columns, bool poles = true);
  // The full Gaussian grid of 2n latitudes (roots of the Legendre polynomial) and 4n longitudes.
  static LatLonGrid gaussian(int64_t n);

  const std::vector<double>& lat() const { return lat_; }
  const std::vector<double>& lon() const { return lon_; }
  int64_t rows() const { return static_cast<int64_t>(lat_.size()); }
  int64_t columns() const { return static_cast<int64_t>(lon_.size()); }
  int64_t size() const { return rows() * columns(); }
  bool periodic() const { return periodic_; }

  // Borders of the cells, one more than the axis has points and in its direction: halfway between
  // neighbours, as far outside at the ends; within +-90 and, where the outermost row is less than a
  // row's distance from a pole, the pole itself. Longitudes are unwrapped (monotonic) and span at
  // most 360. An axis of one point has no borders: Error(argument), except one latitude on all the
  // sphere.
  const std::vector<double>& lat_bounds() const;
  const std::vector<double>& lon_bounds() const;

  // Steradians of each cell, float64 (rows, columns).
  at::Tensor areas() const;
  // (lon, lat) of every point, float64 (size,).
  std::tuple<at::Tensor, at::Tensor> points() const;
  // The longitudes with the steps over 360 or the date line taken out: monotonic.
  const std::vector<double>& unwrapped_lon() const { return unwrapped_; }

  bool operator==(const LatLonGrid& other) const {
    return lat_ == other.lat_ && lon_ == other.lon_;
  }

 private:
  std::vector<double> lat_, lon_, unwrapped_, lat_bounds_, lon_bounds_;
  bool periodic_ = false;
};

}  // namespace halcyon
