// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace halcyon::training {

// The tensors of a run by their names in the file; they share memory with the module and the
// optimizer, so that restoring writes straight into them.
using StateTensors = std::map<std::string, at::Tensor>;

// The module's parameters and buffers as "model.<name>".
StateTensors module_state(const torch::nn::Module& module);
// Adds from to into with the prefix before each name.
void add_state(StateTensors& into, const std::string& prefix, const StateTensors& from);

// The folder of a run's training checkpoints, step-000001000.safetensors: one file each with the
// weights, their average, the optimizer's moments and, in its metadata, `progress` (JSON). Files
// appear whole or not at all, so that a process may be killed at any moment.
class Checkpoints {
 public:
  // Makes the folder and removes what killed processes left half-written.
  Checkpoints(std::filesystem::path folder, int64_t keep);

  // Then removes all but the newest `keep`.
  void save(int64_t step, const StateTensors& state, const nlohmann::json& progress) const;
  // Newest first.
  std::vector<std::filesystem::path> list() const;
  // Restores the newest that can be read; those that cannot are warned of. None: nullopt.
  std::optional<nlohmann::json> restore_newest(const StateTensors& state) const;

 private:
  std::filesystem::path folder_;
  int64_t keep_;
};

// Copies the file's tensors into state and returns its progress. Throws Error(input) naming the
// file and, all at once, the tensors that are missing, unexpected or of another shape or type;
// state is then untouched.
nlohmann::json restore(const std::filesystem::path& path, const StateTensors& state);

}  // namespace halcyon::training
