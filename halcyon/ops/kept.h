// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <memory>

namespace halcyon {

// What an autograd function's forward leaves to its backward besides tensors.
template <class T>
struct Kept : torch::CustomClassHolder {
  explicit Kept(std::shared_ptr<const T> given) : value(std::move(given)) {}
  std::shared_ptr<const T> value;

  static void keep(torch::autograd::AutogradContext& ctx, std::shared_ptr<const T> value) {
    ctx.saved_data["kept"] = c10::IValue::make_capsule(c10::make_intrusive<Kept>(std::move(value)));
  }
  static std::shared_ptr<const T> of(torch::autograd::AutogradContext& ctx) {
    return static_cast<Kept*>(ctx.saved_data["kept"].toCapsule().get())->value;
  }
};

}  // namespace halcyon
