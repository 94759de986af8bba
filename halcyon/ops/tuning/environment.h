// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include <optional>

// What a device can do for neighborhood attention. Without a device: the current CUDA device, or
// the CPU where there is none. The first question loads LibTorch's CUDA half.
namespace halcyon {

bool has_cuda();

// Compute capability as 10 * major + minor; 0 for a device of another kind, and where there is no
// CUDA device. Throws Error(argument) for a CUDA device beyond those that there are.
int get_device_cc(std::optional<c10::Device> device = {});

// True on the CPU, whose kernels take every type; on CUDA from the compute capability that NATTEN
// asks for (5.0, 8.0, 5.0, 7.0, 8.0, 8.0).
bool has_half(std::optional<c10::Device> device = {});
bool has_bfloat(std::optional<c10::Device> device = {});
bool has_fna(std::optional<c10::Device> device = {});
bool has_gemm(std::optional<c10::Device> device = {});
bool has_fp32_gemm(std::optional<c10::Device> device = {});
bool has_fp64_gemm(std::optional<c10::Device> device = {});

// TF32 is CUDA's alone, from 8.0.
bool has_tf32_gemm(std::optional<c10::Device> device = {});

}  // namespace halcyon
