// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>

#include "halcyon/model/state_dict.h"
#include "halcyon/nn/parameters.h"
#include "python/bindings.h"

namespace halcyon::python {

// What makes Impl of these arguments without memory for its weights. The Python modules call the
// constructors for the checks that these make.
template <class Impl, class... Arguments>
auto without_values() {
  return pybind11::init([](Arguments... arguments) {
    const nn::ParametersGuard mode(nn::Parameters::placeholders);
    return std::make_shared<Impl>(std::move(arguments)...);
  });
}

// The class of a C++ module. assign(tensors) gives it weights, without a copy where they are
// contiguous: with them it computes, which halcyon.inference() and the tests that hold the C++ and
// the Python modules together make use of.
template <class Impl>
auto bind_module(pybind11::module_& m, const char* name) {
  return pybind11::class_<Impl, std::shared_ptr<Impl>>(m, name)
      .def("assign",
           [](Impl& self, const std::map<std::string, at::Tensor>& tensors) {
             load_state_dict(self, tensors, /*strict=*/true, LoadMode::assign);
           })
      .def("tensors",
           [](const Impl& self) {
             std::map<std::string, at::Tensor> all;
             for (const auto& item : self.named_parameters()) {
               if (item.value().defined()) all.emplace(item.key(), item.value());
             }
             return all;
           })
      .def("train", [](Impl& self, bool mode) { self.train(mode); });
}

}  // namespace halcyon::python
