// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/large_pages.h"

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <cstdint>

namespace halcyon {
namespace {

constexpr std::uintptr_t kPage = std::uintptr_t{2} << 20;

std::uintptr_t address(const at::Tensor& t) {
  return reinterpret_cast<std::uintptr_t>(t.const_data_ptr());
}

}  // namespace

at::Tensor on_large_pages(at::Tensor t) {
#ifdef MADV_HUGEPAGE
  if (t.device().is_cpu() && t.nbytes() >= 2 * kPage) {
    const auto begin = address(t);
    const auto first = (begin + kPage - 1) / kPage * kPage,
               last = (begin + t.nbytes()) / kPage * kPage;
    // a refusal costs speed alone
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
  return t;
}

at::Tensor scratch_on_large_pages(int64_t elements) {
  constexpr auto kPerPage = static_cast<int64_t>(kPage / sizeof(int32_t));
  if (elements < kPerPage) return at::empty({elements}, at::kInt);
  const int64_t whole = (elements + kPerPage - 1) / kPerPage * kPerPage;
  auto t = on_large_pages(at::empty({whole + kPerPage}, at::kInt));
  const auto skipped = (kPage - address(t) % kPage) % kPage / sizeof(int32_t);
  return t.narrow(0, static_cast<int64_t>(skipped), elements);
}

}  // namespace halcyon
