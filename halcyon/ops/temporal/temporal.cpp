// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/temporal/temporal.h"

#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/rope.h"

namespace halcyon {

at::Tensor temporal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              bool linear, bool causal, std::optional<int64_t> window,
                              const std::optional<at::Tensor>& rope_cos,
                              const std::optional<at::Tensor>& rope_sin) {
  constexpr auto kName = "temporal_attention";
  check_floating(q, 5, kName, "q");
  for (const auto* t : {&k, &v}) {
    check_floating(*t, 5, kName, "k and v");
    HALCYON_CHECK(t->sizes() == q.sizes() && t->scalar_type() == q.scalar_type(), kName,
                  "expected k and v like q {}, got {}", describe(q), describe(*t));
    check_device(*t, q, kName, "k and v");
  }
  HALCYON_CHECK(!window || causal, kName, "expected a window only with causal attention");
  HALCYON_CHECK(!window || *window >= 1, kName, "expected window >= 1, got {}", *window);
  HALCYON_CHECK(rope_cos.has_value() == rope_sin.has_value(), kName,
                "expected rope_cos and rope_sin together, got one of them");
  const auto type = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  auto turned_q = q.to(type), turned_k = k.to(type);
  if (rope_cos) {
    turned_q = apply_rope(turned_q, *rope_cos, *rope_sin, 1);
    turned_k = apply_rope(turned_k, *rope_cos, *rope_sin, 1);
  }
  const auto frames_last = [](const at::Tensor& t) { return t.permute({0, 2, 3, 1, 4}); };
  const double scale = 1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(q.size(4), 1)));
  auto a = at::matmul(frames_last(turned_q) * scale, frames_last(turned_k).transpose(-1, -2));
  if (causal) {
    a = mask_causal(a.permute({0, 3, 4, 1, 2}), linear, window).permute({0, 3, 4, 1, 2});
  }
  if (!linear) a = a.softmax(-1);
  const auto out = at::matmul(a, frames_last(v.to(type))).permute({0, 3, 1, 2, 4});
  return out.contiguous().to(q.scalar_type());
}

}  // namespace halcyon
