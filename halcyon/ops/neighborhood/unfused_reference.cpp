// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "halcyon/ops/neighborhood/backends.h"
#include "halcyon/ops/neighborhood/slots.h"
#include "halcyon/ops/neighborhood/unfused_backends.h"

namespace halcyon::neighborhood {
namespace {

// (B, H, *, c) as (B, H, T, c).
at::Tensor rows(const at::Tensor& t, const std::vector<Axis>& axes) {
  return t.flatten(2, static_cast<int64_t>(axes.size()) + 1);
}

at::Tensor on_axes(const at::Tensor& t, const std::vector<Axis>& axes) {
  std::vector<int64_t> lengths;
  lengths.reserve(axes.size());
  for (const auto& axis : axes) lengths.push_back(axis.length);
  return t.unflatten(2, lengths);
}

// (B, H, *, c) gathered to (B, H, T, W, c).
at::Tensor gathered(const at::Tensor& t, const std::vector<Axis>& axes, const Slots& slots) {
  return rows(t, axes).index_select(2, slots.key.flatten()).unflatten(2, slots.key.sizes());
}

}  // namespace

at::Tensor reference_scores(const at::Tensor& x, const at::Tensor& y,
                            const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& more, const std::vector<Axis>& axes,
                            double unused) {
  const auto type = accumulate_type(x);
  const auto slots = slots_of(axes, x);
  const auto q = rows(x.to(type), axes);
  auto attn = at::einsum("bhtd,bhtwd->bhtw", {q, gathered(y.to(type), axes, slots)});
  if (bias) {
    attn = attn + bias->to(type)
                      .flatten(1)
                      .index_select(1, slots.relative.flatten())
                      .unflatten(1, slots.relative.sizes());
  }
  attn = attn.masked_fill(slots.used.logical_not(), unused);
  if (more) attn = at::cat({attn, at::matmul(q, more->to(type).transpose(2, 3))}, -1);
  return on_axes(attn.to(x.scalar_type()), axes);
}

at::Tensor reference_sums(const at::Tensor& attn, const at::Tensor& y,
                          const std::optional<at::Tensor>& more, const std::vector<Axis>& axes) {
  const auto type = accumulate_type(y);
  const auto slots = slots_of(axes, y);
  const auto all = rows(attn.to(type), axes);
  const int64_t window = slots.key.size(1);
  const auto near = all.slice(-1, 0, window).masked_fill(slots.used.logical_not(), 0);
  auto out = at::einsum("bhtw,bhtwe->bhte", {near, gathered(y.to(type), axes, slots)});
  if (more) out = out + at::matmul(all.slice(-1, window), more->to(type));
  return on_axes(out.to(y.scalar_type()), axes);
}

}  // namespace halcyon::neighborhood
