// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <limits>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/temporal/temporal.h"

namespace halcyon {

at::Tensor mask_causal(const at::Tensor& attn, bool linear, std::optional<int64_t> window) {
  check_floating(attn, 5, "mask_causal", "attn");
  HALCYON_CHECK(!window || *window >= 1, "mask_causal", "expected window >= 1, got {}", *window);
  const auto options = attn.options().dtype(at::kLong);
  const auto distance = at::arange(attn.size(1), options).unsqueeze(1) -
                        at::arange(attn.size(2), options).unsqueeze(0);
  auto hidden = distance < 0;
  if (window) hidden = hidden.logical_or(distance >= *window);
  return attn.masked_fill(hidden.view({1, attn.size(1), attn.size(2), 1, 1}),
                          linear ? 0.0 : -std::numeric_limits<double>::infinity());
}

}  // namespace halcyon
