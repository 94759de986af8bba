// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/device.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include "halcyon/base/error.h"

namespace halcyon {

std::string why_no_cuda() {
  // a Python process has it already; elsewhere its static initialisers register the CUDA kernels
  static const std::string loading = [] {
    if (at::hasCUDA()) return std::string();
    return dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr ? std::string()
                                                                         : std::string(dlerror());
  }();
  if (!loading.empty()) return "LibTorch's CUDA library does not load: " + loading;
  if (!at::hasCUDA()) return "no GPU is visible to this process";
  try {
    const auto count = at::detail::getCUDAHooks().deviceCount();
    return count > 0 ? "" : "no GPU is visible to this process";
  } catch (const std::exception& e) {
    return e.what();
  }
}

c10::Device open_device(const std::string& name) {
  const bool known = name == "cpu" || name == "cuda" || name.starts_with("cuda:");
  HALCYON_CHECK_KIND(known, configuration, "device", "expected cpu, cuda or cuda:N, got {}", name);
  if (name == "cpu") return c10::Device(c10::kCPU);
  const auto reason = why_no_cuda();
  HALCYON_CHECK_KIND(reason.empty(), configuration, "device", "{} was asked for, but {}", name,
                     reason);
  int index = 0;
  if (name != "cuda") {
    const auto digits = name.substr(5);
    const bool number = !digits.empty() && digits.size() < 4 &&
                        digits.find_first_not_of("0123456789") == std::string::npos;
    HALCYON_CHECK_KIND(number, configuration, "device", "expected cuda:N, got {}", name);
    index = std::stoi(digits);
  }
  const auto count = at::detail::getCUDAHooks().deviceCount();
  HALCYON_CHECK_KIND(index < count, configuration, "device", "expected one of {} GPUs, got cuda:{}",
                     count, index);
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

}  // namespace halcyon
