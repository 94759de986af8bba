// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "python/module_handle.h"

namespace halcyon::python {

// Python threads may run while C++ computes.
using Unlocked = pybind11::call_guard<pybind11::gil_scoped_release>;

// The class of one C++ module, with the handle that the Python shell asks for.
template <class Impl>
auto bind_module(pybind11::module_& m, const char* name) {
  return pybind11::class_<Impl, std::shared_ptr<Impl>>(m, name).def(
      "handle", [](std::shared_ptr<Impl> self) { return ModuleHandle{std::move(self)}; });
}

}  // namespace halcyon::python
