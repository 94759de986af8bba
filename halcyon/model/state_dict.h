// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace torch::nn {
class Module;
}

namespace halcyon {

// A tensor that a file holds: what it is, and a function that brings it into memory of its own.
struct StoredTensor {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> sizes;
  std::function<at::Tensor()> read;
};
using StoredState = std::map<std::string, StoredTensor>;

// Every parameter and buffer of a module by its name ("dit.blocks.0.attention..."), sharing memory.
std::map<std::string, at::Tensor> state_dict(const torch::nn::Module& module);

enum class LoadMode {
  copy,    // into the tensors that the module has, which keep dtype and device
  assign,  // the module takes the tensors as they are (their dtype and memory); no second copy
};

struct LoadReport {
  std::vector<std::string> missing, unexpected;  // both empty when strict
  std::vector<std::string> retired;              // keys of older files, passed over
  std::vector<std::string> kept;                 // buffers that older files lack
  std::string prefix;  // keys that differ from the model's by a prefix alone: what to do about it
};

// What load_state_dict would do, without doing it: the same report and the same error.
LoadReport compare_state_dict(const torch::nn::Module& module, const StoredState& state,
                              bool strict = true, const std::string& origin = "");

// Gives a module the values of a state dict; one tensor at a time is read. Nothing is changed
// unless everything fits: otherwise Error(input) names `origin` and every key that is missing,
// unexpected (both only when strict), of another shape, or of another kind of type (floating values
// are converted between floating types; all other types must be equal). Keys of a wrapped model
// ("module.", "_orig_mod.") are not listed one by one: the message names the prefix and the cure.
//
// Older files: keys that are derived and no longer saved (rotary tables, calendar tables, keys that
// end in "device_buffer") are passed over, and a missing "map_noise.freqs" keeps the value that the
// module was built with. The log tells.
LoadReport load_state_dict(torch::nn::Module& module, const StoredState& state, bool strict = true,
                           LoadMode mode = LoadMode::copy, const std::string& origin = "");
LoadReport load_state_dict(torch::nn::Module& module,
                           const std::map<std::string, at::Tensor>& tensors, bool strict = true,
                           LoadMode mode = LoadMode::copy, const std::string& origin = "");

// Tensors in memory as a stored state.
StoredState as_stored(const std::map<std::string, at::Tensor>& tensors);

// True for the keys that only older files hold and nothing needs (see load_state_dict).
bool is_retired_key(const std::string& key);
// True for the buffers among the keys of a state dict: no parameters, though saved.
bool is_buffer_key(const std::string& key);

}  // namespace halcyon
