// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/nccl/backend.h"

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

extern "C" __attribute__((visibility("default"))) c10d::Backend* halcyon_nccl_backend(
    const halcyon::parallel::NcclGroup& group) {
  const c10::cuda::CUDAGuard device(static_cast<c10::DeviceIndex>(group.gpu));
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = group.timeout;
  options->group_name = group.name;
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(
      group.store, static_cast<int>(group.rank), static_cast<int>(group.size), options);
  backend->setBoundDeviceId(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(group.gpu)));
  return backend.release();
}
