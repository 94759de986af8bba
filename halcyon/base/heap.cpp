// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/heap.h"

#include <cstdlib>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace halcyon {

void keep_freed_memory() {
#if defined(__GLIBC__)
  if (std::getenv("GLIBC_TUNABLES")) return;  // somebody has chosen
  mallopt(M_MMAP_MAX, 0);                     // all from the heap,
  mallopt(M_TRIM_THRESHOLD, -1);              // which never shrinks
#endif
}

}  // namespace halcyon
