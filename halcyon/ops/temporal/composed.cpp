// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "halcyon/ops/hidden.h"
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
  const auto queries = per_pixel(q) * scale, keys = per_pixel(k), values = per_pixel(in.v.to(type));
  at::Tensor hidden;
  if (in.causal) {
    const int64_t frames = in.q.size(1);
    const auto ones = at::ones({1, frames, frames, 1, 1}, queries.options());
    hidden = (mask_causal(ones, /*linear=*/true, in.window) == 0).view({frames, frames});
  }
  auto a = in.causal ? seen_scores(queries, keys, hidden,
                                   in.linear ? 0 : -std::numeric_limits<double>::infinity())
                     : at::matmul(queries, keys.transpose(-1, -2));  // (B, X, H, T, T)
  if (!in.linear) a = a.softmax(-1);
  const auto out =
      (in.causal ? seen_sums(a, values, hidden) : at::matmul(a, values)).permute({0, 3, 1, 2, 4});
  return out.contiguous().to(in.q.scalar_type());
}

}  // namespace halcyon::temporal_detail
