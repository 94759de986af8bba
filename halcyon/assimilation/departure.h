// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace halcyon::assimilation {

// One observation as the regional systems see it: its departure from climatology, at its place,
// some hours before the analysis.
struct Departure {
  double lat, lon;          // degrees
  float value;              // observation minus climatology, K
  float error_sd;           // instrument and representativeness together, K
  float climatological_sd;  // of the field there, K
  float age;                // hours from the observation to the analysis, >= 0
};

// The observations of one analysis.
struct DepartureSet {
  int64_t time;  // of the analysis, seconds since 1970 UTC
  std::vector<Departure> observations;
};

}  // namespace halcyon::assimilation
