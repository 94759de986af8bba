// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "halcyon/base/error.h"

namespace halcyon {

// cu_seqlens (P + 1,), int32 or int64, any device, as contiguous int64 on the CPU. Throws
// Error(argument) unless it begins with 0 and ascends.
at::Tensor host_offsets(const at::Tensor& cu_seqlens, const char* operation);

// The same in its own type and with its beginning checked alone, for those who read it once and
// check_ascent as they go.
at::Tensor offsets_from_zero(const at::Tensor& cu_seqlens, const char* operation);

inline void check_ascent(int64_t before, int64_t offset, int64_t place, const char* operation) {
  HALCYON_CHECK(offset >= before, operation,
                "expected cu_seqlens_k to ascend, got {} after {} at {}", offset, before, place);
}

}  // namespace halcyon
