// SPDX-License-Identifier: Apache-2.0
#include "tests/support/golden.h"

#include "tests/support/paths.h"

namespace halcyon::test {

std::map<std::string, at::Tensor> Golden::under(const std::string& prefix) const {
  std::map<std::string, at::Tensor> found;
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with(prefix)) found.emplace(name.substr(prefix.size()), tensor);
  }
  return found;
}

Golden golden(const std::string& name) {
  Golden g{read_safetensors(shared_dir() / "golden" / (name + ".safetensors")), {}};
  if (g.metadata.contains("config")) g.config = nlohmann::json::parse(g.metadata.at("config"));
  return g;
}

}  // namespace halcyon::test
