// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>

#include "halcyon/base/config.h"

namespace halcyon::tuning {

// The section `tuning` of a run. In YAML, with the defaults of a section that is there:
//
//   tuning:
//     enabled: true
//     cache: tuning.json     # no default but the file that HALCYON_TUNING_CACHE names, if any
//
// Without the section the autotuner is on where that variable names a file; `enabled: false` turns
// it off all the same.
struct Config {
  bool enabled = false;
  std::optional<std::filesystem::path> cache;

  // Throws Error(configuration) with the line of what is wrong.
  static Config from(const config::Node& run);
  // Turns the autotuner on or off for the process.
  void apply() const;
};

}  // namespace halcyon::tuning
