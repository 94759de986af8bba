// SPDX-License-Identifier: Apache-2.0
#include "python/module_handle.h"

#include "halcyon/base/error.h"
#include "python/bindings.h"

namespace halcyon::python {

std::string ModuleHandle::name() const {
  const auto qualified = module->name();  // "halcyon::VideoDiTBlockImpl"
  auto plain = qualified.substr(qualified.rfind(':') + 1);
  if (plain.ends_with("Impl")) plain.resize(plain.size() - 4);
  return plain;
}

std::vector<std::pair<std::string, at::Tensor>> ModuleHandle::parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> list;
  for (const auto& entry : module->named_parameters(/*recurse=*/false)) {
    if (entry.value().defined()) list.emplace_back(entry.key(), entry.value());
  }
  return list;
}

std::vector<std::tuple<std::string, at::Tensor, bool>> ModuleHandle::buffers() const {
  std::vector<std::tuple<std::string, at::Tensor, bool>> list;
  for (const auto& entry : module->named_buffers(/*recurse=*/false)) {
    list.emplace_back(entry.key(), entry.value(), true);
  }
  return list;
}

std::vector<std::pair<std::string, ModuleHandle>> ModuleHandle::children() const {
  std::vector<std::pair<std::string, ModuleHandle>> list;
  for (const auto& entry : module->named_children())
    list.emplace_back(entry.key(), ModuleHandle{entry.value()});
  return list;
}

void ModuleHandle::set_buffer(const std::string& name, const at::Tensor& value) const {
  auto buffers = module->named_buffers(/*recurse=*/false);
  auto* buffer = buffers.find(name);
  HALCYON_ASSERT(buffer != nullptr);
  torch::NoGradGuard no_grad;
  buffer->set_data(value);
}

void add_module_handle(pybind11::module_& m) {
  namespace py = pybind11;
  py::class_<ModuleHandle>(m, "ModuleHandle")
      .def("name", &ModuleHandle::name)
      .def("training", &ModuleHandle::training)
      .def("train", &ModuleHandle::train)
      .def("parameters", &ModuleHandle::parameters)
      .def("buffers", &ModuleHandle::buffers)
      .def("children", &ModuleHandle::children)
      .def("set_buffer", &ModuleHandle::set_buffer);
}

}  // namespace halcyon::python
