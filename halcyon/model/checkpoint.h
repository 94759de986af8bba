// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "halcyon/model/checkpoint/file.h"
#include "halcyon/model/healda.h"

namespace halcyon {

// The model of a checkpoint file (see read_checkpoint), in eval mode, on the CPU, in the types that
// the file holds. The weights are in memory of the model's own: what happens to the file later does
// not touch them. Needs memory for the weights and one tensor more, and for the whole of a .mdlus
// that is compressed as one (gzip, a deflated model.pt). Throws Error(input) naming the file: an
// unreadable or corrupt file, an unknown or impossible configuration, keys that are missing,
// unexpected or misshapen (all in one message).
HealDA load_checkpoint(const std::filesystem::path& path);

// The same for a file that was opened before.
HealDA load_checkpoint(const Checkpoint& checkpoint);

// Throws Error(input) unless the file's tensors are those of its configuration. Reads no tensor.
void check_complete(const Checkpoint& checkpoint);

// Writes a model as safetensors with its configuration in the metadata, atomically; load_checkpoint
// gives back an equal configuration and bit-equal tensors. metadata: more texts to keep with it.
// Throws Error(argument) unless path ends in .safetensors, Error(output) when it cannot be written.
void save_checkpoint(const HealDA& model, const std::filesystem::path& path,
                     std::map<std::string, std::string> metadata = {});

}  // namespace halcyon
