// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace halcyon {

// Asks the system to back a tensor that is still to be written with large pages, where it has them:
// a page fault for 4 KiB costs more than computing them. The tensor itself is returned.
at::Tensor on_large_pages(at::Tensor t);

// Uninitialised memory for a while, (elements,) int32, that begins on a large page where it fills
// one. It is a view of a longer storage: nothing to keep or to save.
at::Tensor scratch_on_large_pages(int64_t elements);

}  // namespace halcyon
