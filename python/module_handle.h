// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/extension.h>

#include <memory>
#include <string>
#include <vector>

namespace halcyon::python {

// What the Python shell (python/halcyon/_shell.py) needs to know of one C++ module of a tree. torch
// binds torch::nn::Module itself, so the modules travel inside this type instead of under that base
// class.
struct ModuleHandle {
  std::shared_ptr<torch::nn::Module> module;

  std::string name() const;
  bool training() const { return module->is_training(); }
  void train(bool mode) const { module->train(mode); }
  // Of this module alone, not of its children. A buffer is persistent when the state dict has it.
  std::vector<std::pair<std::string, at::Tensor>> parameters() const;
  std::vector<std::tuple<std::string, at::Tensor, bool>> buffers() const;
  std::vector<std::pair<std::string, ModuleHandle>> children() const;
  void set_buffer(const std::string& name, const at::Tensor& value) const;
};

}  // namespace halcyon::python
