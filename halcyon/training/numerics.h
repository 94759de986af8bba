// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "halcyon/training/task.h"

namespace halcyon::training {

// The first tensor that holds NaN or infinity, with a count: "prediction (3 of 40 values)"; "" when
// there is none. Undefined tensors and whole numbers are passed over.
std::string first_not_finite(const NamedTensors& tensors);

// Autocast to bfloat16 on the device while it lives; its cache of cast weights is dropped at the
// end, for the optimizer changes them.
class Bf16Autocast {
 public:
  Bf16Autocast(at::DeviceType device, bool enabled);
  ~Bf16Autocast();
  Bf16Autocast(const Bf16Autocast&) = delete;
  Bf16Autocast& operator=(const Bf16Autocast&) = delete;

 private:
  bool enabled_;
  at::DeviceType device_;
  bool before_;
  at::ScalarType before_type_;
};

}  // namespace halcyon::training
