// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/ops/rope.h"
#include "halcyon/ops/temporal/backends.h"
#include "halcyon/ops/temporal/temporal.h"

namespace halcyon::temporal_detail {

at::Tensor composed(const Inputs& in) {
  const auto type = in.q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  auto q = in.q.to(type), k = in.k.to(type);
  if (in.cos) {
    q = apply_rope(q, *in.cos, *in.sin, 1);
    k = apply_rope(k, *in.cos, *in.sin, 1);
  }
  const auto per_pixel = [](const at::Tensor& t) { return t.permute({0, 2, 3, 1, 4}); };
  const double scale = 1.0 / std::sqrt(static_cast<double>(in.q.size(4)));
  auto a = at::matmul(per_pixel(q) * scale, per_pixel(k).transpose(-1, -2));  // (B, X, H, T, T)
  if (in.causal) {
    a = mask_causal(a.permute({0, 3, 4, 1, 2}), in.linear, in.window).permute({0, 3, 4, 1, 2});
  }
  if (!in.linear) a = a.softmax(-1);
  const auto out = at::matmul(a, per_pixel(in.v.to(type))).permute({0, 3, 1, 2, 4});
  return out.contiguous().to(in.q.scalar_type());
}

}  // namespace halcyon::temporal_detail
