// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <initializer_list>
#include <optional>

namespace halcyon {

// The registered operator of this name; F is the type of its kernel.
template <class F>
auto operator_named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<F>();
}

// Whether t has a forward-mode derivative.
inline bool has_tangent(const std::optional<at::Tensor>& t) {
  return t && t->defined() && t->_fw_grad(/*level=*/0).defined();
}

// Whether a transform of torch.func (grad, vjp, jvp, vmap) is being applied. Autograd functions
// written in C++ take no part in those.
bool under_transform();

// Whether ATen's operators must compute: under a transform of torch.func, or where one of the
// tensors has a forward-mode derivative.
bool needs_composition(std::initializer_list<std::optional<at::Tensor>> tensors);

// Whether the sizes of t are symbols, as in a graph that is traced for any number of rows.
inline bool has_symbols(const at::Tensor& t) {
  return t.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

// An optional tensor for autograd and the dispatcher, which take no undefined ones.
inline std::optional<at::Tensor> if_defined(const at::Tensor& t) {
  return t.defined() ? std::optional(t) : std::nullopt;
}

}  // namespace halcyon
