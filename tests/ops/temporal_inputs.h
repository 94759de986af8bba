// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <tuple>

#include "halcyon/ops/rope.h"
#include "halcyon/ops/temporal/backends.h"

namespace halcyon::test {

struct TemporalShape {
  int64_t batch, frames, pixels, heads, head_dim;
};
struct TemporalOptions {
  bool linear, causal;
  std::optional<int64_t> window;
  bool rope;
};

// q, k and v drawn side by side, as the layer has them: strided views of one tensor.
inline temporal_detail::Inputs temporal_inputs(const TemporalShape& s, const TemporalOptions& o,
                                               at::ScalarType type) {
  at::manual_seed(4);
  const auto qkv =
      at::randn({s.batch, s.frames, s.pixels, 3, s.heads, s.head_dim}, at::kDouble).to(type);
  temporal_detail::Inputs in{
      qkv.select(3, 0), qkv.select(3, 1), qkv.select(3, 2), o.linear, o.causal, o.window, {}, {}};
  if (o.rope) std::tie(in.cos, in.sin) = rope_tables(s.head_dim, s.frames);
  return in;
}

}  // namespace halcyon::test
