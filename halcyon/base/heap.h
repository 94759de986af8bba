// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace halcyon {

// From now on this process keeps the memory that it frees and uses it again. glibc gives a large
// block back to the kernel as soon as it is freed, so that every layer's result is made of fresh
// pages, each zeroed at its first touch: 3 to 15 % of a training step (docs/profile.md). For
// programs, not for libraries, and before threads start. GLIBC_TUNABLES in the environment has the
// last word; with another C library nothing happens.
void keep_freed_memory();

}  // namespace halcyon
