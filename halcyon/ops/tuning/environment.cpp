// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/tuning/environment.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include "halcyon/base/device.h"
#include "halcyon/base/error.h"

namespace halcyon {
namespace {

using MaybeDevice = std::optional<c10::Device>;

// From the driver: LibTorch's hooks do not tell it, and its CUDA headers ask for a toolkit.
int capability_of(c10::DeviceIndex ordinal) {
  constexpr int kMajor = 75, kMinor = 76;  // CUdevice_attribute
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  HALCYON_CHECK_KIND(driver != nullptr, unsupported, "get_device_cc",
                     "expected CUDA's driver library, got none: {}", dlerror());
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto get = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
  const auto ask = reinterpret_cast<int (*)(int*, int, int)>(dlsym(driver, "cuDeviceGetAttribute"));
  int device = 0, major = 0, minor = 0;
  const bool known = init != nullptr && get != nullptr && ask != nullptr && init(0) == 0 &&
                     get(&device, ordinal) == 0 && ask(&major, kMajor, device) == 0 &&
                     ask(&minor, kMinor, device) == 0;
  HALCYON_CHECK_KIND(known, unsupported, "get_device_cc",
                     "expected the compute capability of {} from the driver, got none",
                     c10::Device(at::kCUDA, ordinal).str());
  return 10 * major + minor;
}

bool on_cpu_or(MaybeDevice device, int least) {
  const int capability = get_device_cc(device);
  return capability == 0 || capability >= least;
}

}  // namespace

bool has_cuda() {
  return why_no_cuda().empty();
}

int get_device_cc(MaybeDevice device) {
  if ((device && !device->is_cuda()) || !has_cuda()) return 0;
  const auto& hooks = at::detail::getCUDAHooks();
  const c10::DeviceIndex ordinal =
      device && device->has_index() ? device->index() : hooks.getCurrentDevice();
  HALCYON_CHECK(ordinal < hooks.deviceCount(), "get_device_cc",
                "expected one of {} CUDA devices, got {}", static_cast<int>(hooks.deviceCount()),
                c10::Device(at::kCUDA, ordinal).str());
  return capability_of(ordinal);
}

bool has_half(MaybeDevice device) {
  return on_cpu_or(device, 50);
}
bool has_bfloat(MaybeDevice device) {
  return on_cpu_or(device, 80);
}
bool has_fna(MaybeDevice device) {
  return on_cpu_or(device, 50);
}
bool has_gemm(MaybeDevice device) {
  return on_cpu_or(device, 70);
}
bool has_fp32_gemm(MaybeDevice device) {
  return on_cpu_or(device, 80);
}
bool has_fp64_gemm(MaybeDevice device) {
  return on_cpu_or(device, 80);
}
bool has_tf32_gemm(MaybeDevice device) {
  return get_device_cc(device) >= 80;
}

}  // namespace halcyon
