// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace halcyon {

// "(2, 3, 64) Float on cpu", or "no tensor", for messages.
std::string describe(const at::Tensor& t);

}  // namespace halcyon
