// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pixel_attention/offsets.h"

#include <ATen/ATen.h>

#include "halcyon/ops/checks.h"

namespace halcyon {

at::Tensor offsets_from_zero(const at::Tensor& cu_seqlens, const char* operation) {
  check_index(cu_seqlens, {}, operation, "cu_seqlens_k");
  HALCYON_CHECK(cu_seqlens.size(0) >= 1, operation,
                "expected cu_seqlens_k with one entry more than there are pixels, got none");
  auto offsets = cu_seqlens.cpu().contiguous();
  const auto first = offsets[0].item<int64_t>();
  HALCYON_CHECK(first == 0, operation, "expected cu_seqlens_k to begin with 0, got {}", first);
  return offsets;
}

at::Tensor host_offsets(const at::Tensor& cu_seqlens, const char* operation) {
  auto offsets = offsets_from_zero(cu_seqlens, operation).to(at::kLong);
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  for (int64_t i = 1; i < offsets.size(0); ++i)
    check_ascent(offset[i - 1], offset[i], i, operation);
  return offsets;
}

}  // namespace halcyon
