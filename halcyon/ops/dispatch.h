// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

namespace halcyon {

// The registered operator of this name; F is the type of its kernel.
template <class F>
auto operator_named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<F>();
}

// Whether t has a forward-mode derivative.
inline bool has_tangent(const std::optional<at::Tensor>& t) {
  return t && t->_fw_grad(/*level=*/0).defined();
}

}  // namespace halcyon
