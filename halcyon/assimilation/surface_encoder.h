// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "halcyon/assimilation/departure.h"
#include "halcyon/ops/pixel_attention/obs_context.h"
#include "halcyon/sphere/region.h"

namespace halcyon::assimilation {

// Turns departures into what HealDA reads: values in units of their own expected spread, the
// metadata layout "surface", and the pixel that each belongs to.
class SurfaceEncoder {
 public:
  static constexpr int64_t kFeatures = 38;
  // Ids of the two kinds of rows: a temperature, and the mark that every pixel carries so that an
  // empty pixel, too, can ask and know where it lies.
  enum Channel : int64_t { temperature = 0, place = 1 };

  // tokens: the coarse pixels of the model's region.
  explicit SurfaceEncoder(const Region& tokens);

  // Whether a point lies in the region; observations elsewhere must be left out before encode().
  bool holds(double lat, double lon) const;

  // One element of the batch per set; frames are T = 1, so the flat index is b * X + pixel.
  // Throws Error(argument) for an observation outside the region.
  ObsContext encode(const std::vector<DepartureSet>& batch) const;

 private:
  struct Position {
    int64_t token;       // -1 outside the region
    double row, column;  // within the pixel, -1 to 1
  };
  Position locate(double lat, double lon) const;

  int level_;
  int64_t tokens_;
  std::vector<int32_t> index_;  // of every pixel of the sphere at level_: its token or -1
  std::vector<double> centre_lat_, centre_lon_;
};

}  // namespace halcyon::assimilation
