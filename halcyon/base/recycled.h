// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace halcyon {

// at::empty whose memory, when it is freed, waits for the next that is asked for here. glibc gives
// large blocks back to the kernel as they are freed and gets fresh pages for the next, each zeroed
// at its first touch: three quarters of the time of a halo exchange. For results that are made
// again and again in the same sizes, in a library, which must not change the process's heap
// (heap.h). At most kMostRecycled bytes wait; larger and much smaller tensors, and those of other
// devices, are at::empty's. From any thread.
at::Tensor recycled_empty(at::IntArrayRef sizes, const at::TensorOptions& options);

constexpr size_t kMostRecycled = size_t{256} << 20;

// Bytes that wait now.
size_t recycled_bytes();

}  // namespace halcyon
