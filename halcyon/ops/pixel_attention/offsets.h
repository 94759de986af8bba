// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace halcyon {

// cu_seqlens (P + 1,), int32 or int64, any device, as contiguous int64 on the CPU. Throws
// Error(argument) unless it begins with 0 and ascends.
at::Tensor host_offsets(const at::Tensor& cu_seqlens, const char* operation);

}  // namespace halcyon
