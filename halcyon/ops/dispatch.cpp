// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/dispatch.h"

#include <ATen/functorch/DynamicLayer.h>

#include <algorithm>

namespace halcyon {

bool under_transform() {
  return !at::functorch::getDynamicLayerStack().empty();
}

bool needs_composition(std::initializer_list<std::optional<at::Tensor>> tensors) {
  return under_transform() || std::any_of(tensors.begin(), tensors.end(), has_tangent);
}

}  // namespace halcyon
