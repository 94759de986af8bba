// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace halcyon {

// "cpu", "cuda" or "cuda:N". LibTorch's CUDA half is loaded on the first request for a GPU, so that
// CPU runs neither need it nor pay for it. Throws Error(configuration) naming the reason when there
// is no such device.
c10::Device open_device(const std::string& name);

// Why open_device("cuda") would fail, or an empty string when it would not.
std::string why_no_cuda();

}  // namespace halcyon
