// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint.h"

#include "halcyon/model/state_dict.h"
#include "python/bindings.h"

namespace halcyon::python {
namespace py = pybind11;

void add_checkpoints(py::module_& m) {
  // (configuration as JSON, tensors by key)
  m.def(
      "load_checkpoint",
      [](const std::string& path) {
        const auto model = load_checkpoint(std::filesystem::path(path));
        return std::pair(model->config().to_json().dump(), state_dict(*model));
      },
      py::arg("path"), Unlocked());
  m.def(
      "save_checkpoint",
      [](const std::shared_ptr<HealDAImpl>& model, const std::string& path) {
        save_checkpoint(HealDA(model), path);
      },
      py::arg("model"), py::arg("path"), Unlocked());
}

}  // namespace halcyon::python
