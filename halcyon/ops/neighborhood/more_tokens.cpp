// SPDX-License-Identifier: Apache-2.0
// Additional keys and values, which every query sees: few, so plain products over blocks of
// queries.
#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "halcyon/ops/neighborhood/backends.h"
#include "halcyon/ops/pieces.h"

namespace halcyon::neighborhood {
namespace {

// Rows whose scores take about 1 MiB.
int64_t rows_of_block(int64_t more) {
  return std::max<int64_t>((int64_t{1} << 18) / std::max<int64_t>(more, 1), 1);
}

// (B, *, H, c) as (B G, T H / G, c): the rows that share a key head.
at::Tensor grouped(const at::Tensor& t, int64_t groups, at::ScalarType type) {
  const auto flat = t.to(type).flatten(1, -3);  // (B, T, H, c)
  return flat.unflatten(2, {groups, flat.size(2) / groups})
      .transpose(1, 2)
      .flatten(2, 3)
      .flatten(0, 1);
}

// The inverse, to the shape of like.
at::Tensor ungrouped(const at::Tensor& rows, int64_t groups, at::IntArrayRef shape) {
  const int64_t heads = shape[shape.size() - 2];
  return rows.unflatten(0, {-1, groups})
      .unflatten(2, {-1, heads / groups})
      .transpose(1, 2)
      .reshape(shape);
}

// (B, N, G, c) as (B G, N, c).
at::Tensor tokens(const at::Tensor& t, at::ScalarType type) {
  return t.to(type).transpose(1, 2).flatten(0, 1);
}

// The inverse.
at::Tensor as_given(const at::Tensor& tokens, int64_t groups, at::ScalarType type) {
  return tokens.unflatten(0, {-1, groups}).transpose(1, 2).to(type);
}

}  // namespace

void add_more_tokens(const Inputs& in, Output& output) {
  const auto type = in.accumulate();
  const int64_t groups = in.key.size(-2), more = in.more_keys->size(1);
  if (more == 0 || output.lse.numel() == 0) return;
  const auto query = grouped(in.query, groups, type);
  const auto keys = tokens(*in.more_keys, type), values = tokens(*in.more_values, type);
  const auto out = grouped(output.out, groups, type),
             lse = grouped(output.lse.unsqueeze(-1), groups, type);
  auto joint_out = at::empty_like(out), joint_lse = at::empty_like(lse);
  const int64_t step = rows_of_block(more), blocks = (query.size(1) + step - 1) / step;
  each_piece(query.size(0) * blocks, [&](int64_t piece) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const int64_t group = piece / blocks, first = piece % blocks * step,
                  size = std::min(step, query.size(1) - first);
    const auto here = [&](const at::Tensor& t) {
      return t.select(0, group).narrow(0, first, size);
    };
    const auto scores = at::mm(here(query) * in.scale, keys.select(0, group).t());
    const auto before = here(lse);
    const auto joint = at::logaddexp(before, at::logsumexp(scores, -1, true));
    // a window whose scores are all -infinity has no result of its own
    const auto window =
        here(out).masked_fill(before == -std::numeric_limits<double>::infinity(), 0);
    here(joint_out).copy_(window * (before - joint).exp() +
                          at::mm((scores - joint).exp(), values.select(0, group)));
    here(joint_lse).copy_(joint);
  });
  output.out = ungrouped(joint_out, groups, output.out.sizes()).to(output.out.scalar_type());
  output.lse = ungrouped(joint_lse, groups, output.lse.unsqueeze(-1).sizes()).squeeze(-1);
}

void add_more_gradients(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                        const at::Tensor& delta, Gradients& grad) {
  const auto type = in.accumulate();
  const int64_t groups = in.key.size(-2), step = rows_of_block(in.more_keys->size(1));
  const auto query = grouped(in.query, groups, type), grad_rows = grouped(grad_out, groups, type);
  const auto lse_rows = grouped(lse.unsqueeze(-1), groups, type),
             delta_rows = grouped(delta.unsqueeze(-1), groups, type);
  const auto keys = tokens(*in.more_keys, type), values = tokens(*in.more_values, type);
  auto grad_query = at::zeros_like(query), grad_keys = at::zeros_like(keys),
       grad_values = at::zeros_like(values);
  each_piece(query.size(0), [&](int64_t group) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto k = keys.select(0, group), v = values.select(0, group);
    auto to_keys = grad_keys.select(0, group), to_values = grad_values.select(0, group);
    for (int64_t first = 0; first < query.size(1); first += step) {
      const int64_t size = std::min(step, query.size(1) - first);
      const auto here = [&](const at::Tensor& t) {
        return t.select(0, group).narrow(0, first, size);
      };
      const auto q = here(query) * in.scale, g = here(grad_rows);
      const auto p = (at::mm(q, k.t()) - here(lse_rows)).exp();
      const auto ds = p * (at::mm(g, v.t()) - here(delta_rows));
      here(grad_query).copy_(at::mm(ds, k) * in.scale);
      to_keys += at::mm(ds.t(), q);
      to_values += at::mm(p.t(), g);
    }
  });
  const auto own = in.query.scalar_type();
  grad.query = (grad.query.to(type) + ungrouped(grad_query, groups, in.query.sizes())).to(own);
  grad.more_keys = as_given(grad_keys, groups, own);
  grad.more_values = as_given(grad_values, groups, own);
}

}  // namespace halcyon::neighborhood
