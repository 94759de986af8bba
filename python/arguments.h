// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <torch/extension.h>

#include <set>
#include <string>

namespace halcyon::python {

// Reads a dict of keyword arguments into the members of an options struct. What is left unread is
// an unknown keyword: TypeError, as from a Python function.
class Arguments {
 public:
  // values may be None: no arguments.
  Arguments(std::string function, const pybind11::object& values) : function_(std::move(function)) {
    if (values.is_none()) return;
    if (!pybind11::isinstance<pybind11::dict>(values)) {
      throw pybind11::type_error(
          fmt::format("[{}] expected a dict of arguments, got {}", function_,
                      std::string(pybind11::str(pybind11::type::of(values)))));
    }
    values_ = pybind11::reinterpret_borrow<pybind11::dict>(values);
  }

  template <class T>
  Arguments& read(const char* name, T& member) {
    known_.insert(name);
    if (!values_.contains(name)) return *this;
    try {
      member = values_[name].template cast<T>();
    } catch (const pybind11::cast_error&) {
      throw pybind11::type_error(fmt::format("[{}] {} has the wrong type: {}", function_, name,
                                             std::string(pybind11::repr(values_[name]))));
    }
    return *this;
  }

  template <class T>
  Arguments& require(const char* name, T& member) {
    if (!values_.contains(name)) {
      throw pybind11::type_error(
          fmt::format("[{}] missing the required argument '{}'", function_, name));
    }
    return read(name, member);
  }

  pybind11::object get(const char* name) {
    known_.insert(name);
    return values_.contains(name) ? pybind11::object(values_[name]) : pybind11::none();
  }

  void finish() const {
    for (const auto& [key, value] : values_) {
      const auto name = key.cast<std::string>();
      if (!known_.contains(name)) {
        throw pybind11::type_error(
            fmt::format("[{}] got an unexpected argument '{}'", function_, name));
      }
    }
  }

 private:
  std::string function_;
  pybind11::dict values_;
  std::set<std::string> known_;
};

}  // namespace halcyon::python
