// SPDX-License-Identifier: Apache-2.0
// Windows that cover every axis: plain attention, by torch's own flash kernel.
//
// Measured on one core (fp32, heads x width 8 x 64 and 4 x 32, 64 to 4096 tokens, one to three
// axes), it takes 0.4 to 0.95 of the tiles' time forward and 0.25 to 0.6 backward, causal too. In
// bfloat16 it is slower than in float, and than the tiles where tokens are few: so half types are
// computed in float here as everywhere. Its blocks depend on lengths alone, and a head is summed by
// one thread: the bits do not depend on the number of threads as long as there are several heads.
#include <ATen/ATen.h>

#include <algorithm>

#include "halcyon/ops/neighborhood/backends.h"

namespace halcyon::neighborhood {
namespace {

// Its backward is parallel over heads only.
constexpr int64_t kLeastHeads = 4;

bool causal(const Inputs& in) {
  return in.axes.front().causal && in.axes.front().length > 1;
}

// (B, *, G, c) as (B, H, T, c).
at::Tensor heads_first(const at::Tensor& t, const Inputs& in) {
  const auto rows = t.to(in.accumulate()).flatten(1, -3).transpose(1, 2);
  const int64_t shared = in.query.size(-2) / t.size(-2);
  return shared == 1 ? rows : rows.repeat_interleave(shared, 1);
}

// The inverse, to the shape and dtype of like; query heads that share one are summed.
at::Tensor heads_last(const at::Tensor& t, const at::Tensor& like) {
  const int64_t groups = like.size(-2);
  const auto sums = t.size(1) == groups ? t : t.unflatten(1, {groups, -1}).sum(2);
  return sums.transpose(1, 2).reshape(like.sizes()).to(like.scalar_type());
}

}  // namespace

bool is_plain(const Inputs& in) {
  for (const auto& axis : in.axes) {
    // in a causal window of several axes a key is seen that comes later
    const bool covers = axis.kernel == axis.length && axis.dilation == 1 &&
                        (!axis.causal || (in.axes.size() == 1 && axis.stride == 1));
    if (!covers) return false;
  }
  return !in.bias && in.query.sym_size(-1) == in.value.sym_size(-1) &&
         in.query.sym_size(0) * in.query.sym_size(-2) >= kLeastHeads;
}

Output forward_plain(const Inputs& in) {
  const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
      heads_first(in.query, in), heads_first(in.key, in), heads_first(in.value, in), 0, causal(in),
      {}, in.scale);
  auto shape = in.query.sizes().vec();
  shape.pop_back();
  return {heads_last(out, in.query), lse.transpose(1, 2).reshape(shape)};
}

Gradients backward_plain(const Inputs& in, const Output& forward, const at::Tensor& grad_out) {
  const auto lse = heads_first(forward.lse.unsqueeze(-1), in).squeeze(-1);
  const auto [query, key, value] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      heads_first(grad_out, in), heads_first(in.query, in), heads_first(in.key, in),
      heads_first(in.value, in), heads_first(forward.out, in), lse, 0, causal(in), {}, in.scale);
  return {heads_last(query, in.query),
          heads_last(key, in.key),
          heads_last(value, in.value),
          {},
          {},
          {}};
}

}  // namespace halcyon::neighborhood
