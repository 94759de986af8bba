// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "halcyon/model/state_dict.h"

namespace halcyon {

// What a checkpoint file holds. The file stays open; each tensor is read when asked for, into
// memory of its own. Error(input) then when the file was written to in between.
struct Checkpoint {
  std::filesystem::path path;
  std::string container;    // "safetensors", "mdlus (zip)" or "mdlus (tar)"
  std::string model_class;  // "HealDA"
  nlohmann::json config;    // every argument of the model's constructor that the file names
  StoredState tensors;
  std::map<std::string, std::string> metadata;  // what else the file says about itself

  // Elements of the tensors that are parameters (no buffers, no keys of older formats).
  int64_t parameter_count() const;
};

// Reads any checkpoint: .safetensors of Halcyon, plain .safetensors with a .json of the same name
// beside it, and .mdlus (zip, or the older tar, also gzipped). Executes nothing from the file.
// Checksums that the container holds are verified here; no tensor is kept in memory. Throws
// Error(input) naming the file and the reason.
Checkpoint read_checkpoint(const std::filesystem::path& path);

namespace checkpoint {
// Adds what read_checkpoint looks for in the metadata of Halcyon's own safetensors.
void write_own_metadata(std::string config, std::map<std::string, std::string>& metadata);
}  // namespace checkpoint

}  // namespace halcyon
