// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/large_pages.h"

#include <sys/mman.h>

#include <cstdint>

namespace halcyon {

at::Tensor on_large_pages(at::Tensor t) {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t kPage = std::uintptr_t{2} << 20;
  if (t.device().is_cpu() && t.nbytes() >= 2 * kPage) {
    const auto begin = reinterpret_cast<std::uintptr_t>(t.mutable_data_ptr());
    const auto first = (begin + kPage - 1) / kPage * kPage,
               last = (begin + t.nbytes()) / kPage * kPage;
    // a refusal costs speed alone
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
  return t;
}

}  // namespace halcyon
