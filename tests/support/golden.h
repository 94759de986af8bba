// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "halcyon/base/safetensors.h"

namespace halcyon::test {

// One file of ../shared/golden: in.*, param.*, out.*, gradout.*, grad.* tensors and its JSON
// configuration.
struct Golden : TensorFile {
  nlohmann::json config;
  bool has(const std::string& name) const { return tensors.contains(name); }
  // Tensors whose names begin with prefix, the prefix taken off.
  std::map<std::string, at::Tensor> under(const std::string& prefix) const;
};

// golden("healda/rope") reads ../shared/golden/healda/rope.safetensors.
Golden golden(const std::string& name);

}  // namespace halcyon::test
