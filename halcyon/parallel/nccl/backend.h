// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <string>

namespace halcyon::parallel {

struct NcclGroup {
  c10::intrusive_ptr<c10d::Store> store;  // where the ranks of this group meet
  std::string name;
  int64_t rank = 0;
  int64_t size = 1;
  int64_t gpu = 0;  // of this process, one of its own
  std::chrono::milliseconds timeout{};
};

// Loads libhalcyon_nccl and LibTorch's CUDA half; why this machine or this build has none, or an
// empty string.
std::string why_no_nccl();

// The backend that moves tensors of GPUs between the ranks of a group, where why_no_nccl() has
// nothing to say. Error(configuration) where this process's GPU is missing.
c10::intrusive_ptr<c10d::Backend> nccl_backend(const NcclGroup& group);

}  // namespace halcyon::parallel

// What libhalcyon_nccl defines; the caller owns the reference.
extern "C" c10d::Backend* halcyon_nccl_backend(const halcyon::parallel::NcclGroup& group);
