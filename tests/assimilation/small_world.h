// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "halcyon/assimilation/regional_system.h"
#include "halcyon/state/fields.h"
#include "tests/support/paths.h"

namespace halcyon::test {

// A region of 6 x 8 points and two ages, all of 2013 to train on and the first quarter of 2014 to
// evaluate, as a user has it on disk:
//   air.nc                             fields, waves that move over it
//   city_stations.csv, city_t2m.csv    five cities and their reports, 0.5 K off the fields
//   system.yaml                        the regional system
//   weights.safetensors                a tiny network of random numbers
class SmallWorld {
 public:
  SmallWorld();

  const std::filesystem::path& folder() const { return folder_.path(); }
  std::filesystem::path file(const std::string& name) const { return folder_ / name; }
  // Read from system.yaml with the overrides.
  assimilation::RegionalSystem system(const std::vector<std::string>& overrides = {}) const;
  // The network's architecture, as the section "model" of a run.
  static std::string model();

 private:
  TemporaryFolder folder_;
};

// What is the truth of the small world.
state::Fields small_truth();

// Writes a model of random numbers for the system.
void write_random_weights(const assimilation::RegionalSystem& system,
                          const std::filesystem::path& path);

}  // namespace halcyon::test
