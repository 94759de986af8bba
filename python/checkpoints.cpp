// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint.h"
#include "python/bind_module.h"
#include "python/bindings.h"

namespace halcyon::python {
namespace py = pybind11;

void add_checkpoints(py::module_& m) {
  m.def(
      "load_checkpoint",
      [](const std::string& path) {
        const py::gil_scoped_release unlocked;
        return load_checkpoint(std::filesystem::path(path)).ptr();
      },
      py::arg("path"));
  m.def(
      "save_checkpoint",
      [](const std::shared_ptr<HealDAImpl>& model, const std::string& path) {
        const py::gil_scoped_release unlocked;
        save_checkpoint(HealDA(model), path);
      },
      py::arg("model"), py::arg("path"));
}

}  // namespace halcyon::python
