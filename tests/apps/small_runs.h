// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tests/apps/program.h"
#include "tests/assimilation/small_world.h"

namespace halcyon::test {

// The small world with a run of each subcommand: analyze.yaml, train.yaml and evaluate.yaml, whose
// outputs are analysis/, training/ with trained.safetensors, and scores.csv.
class SmallRuns : public SmallWorld {
 public:
  SmallRuns();

  // The file in quotes for the shell.
  std::string quoted(const std::string& name) const;
  // halcyon COMMAND COMMAND.yaml MORE; more may hold {}, which stands for the folder.
  Result run(const std::string& command, std::string more = "",
             const std::string& before = "") const;
};

}  // namespace halcyon::test
