// SPDX-License-Identifier: Apache-2.0
// Additional keys and values, which every query sees: few, so plain products over blocks of
// queries.
#include <ATen/ATen.h>

#include <algorithm>

#include "halcyon/ops/neighborhood/backends.h"

namespace halcyon::neighborhood {
namespace {

// Blocks of rows whose scores take about 4 MiB.
constexpr int64_t kScores = int64_t{1} << 20;

// (B, *, H, c) as (B, G, T * H / G, c): the rows that share a key head.
at::Tensor grouped(const at::Tensor& t, int64_t groups, at::ScalarType type) {
  const auto flat = t.to(type).flatten(1, -3);  // (B, T, H, c)
  return flat.unflatten(2, {groups, flat.size(2) / groups}).transpose(1, 2).flatten(2, 3);
}

// The inverse, to the shape of like.
at::Tensor ungrouped(const at::Tensor& rows, at::IntArrayRef shape) {
  const int64_t groups = rows.size(1), heads = shape[shape.size() - 2];
  return rows.unflatten(2, {-1, heads / groups}).transpose(1, 2).reshape(shape);
}

// (B, N, G, c) as (B, G, N, c).
at::Tensor tokens(const at::Tensor& t, at::ScalarType type) {
  return t.to(type).transpose(1, 2);
}

template <class F>
void each_block(const at::Tensor& rows, int64_t more, const F& f) {
  const int64_t columns = std::max<int64_t>(rows.size(0) * rows.size(1) * more, 1);
  const int64_t step = std::max<int64_t>(kScores / columns, 1);
  for (int64_t begin = 0; begin < rows.size(2); begin += step)
    f(begin, std::min(step, rows.size(2) - begin));
}

}  // namespace

void add_more_tokens(const Inputs& in, Output& output) {
  const auto type = in.accumulate();
  const int64_t groups = in.key.size(-2), more = in.more_keys->size(1);
  if (more == 0 || output.lse.numel() == 0) return;
  const auto query = grouped(in.query, groups, type);
  const auto keys = tokens(*in.more_keys, type), values = tokens(*in.more_values, type);
  auto out = grouped(output.out, groups, type),
       lse = grouped(output.lse.unsqueeze(-1), groups, type);
  auto joint_out = at::empty_like(out), joint_lse = at::empty_like(lse);
  each_block(query, more, [&](int64_t begin, int64_t size) {
    const auto scores = at::matmul(query.narrow(2, begin, size) * in.scale, keys.transpose(2, 3));
    const auto before = lse.narrow(2, begin, size);
    const auto joint = at::logaddexp(before, at::logsumexp(scores, -1, true));
    joint_out.narrow(2, begin, size)
        .copy_(out.narrow(2, begin, size) * (before - joint).exp() +
               at::matmul((scores - joint).exp(), values));
    joint_lse.narrow(2, begin, size).copy_(joint);
  });
  output.out = ungrouped(joint_out, output.out.sizes()).to(output.out.scalar_type());
  output.lse = ungrouped(joint_lse, output.lse.unsqueeze(-1).sizes()).squeeze(-1);
}

void add_more_gradients(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                        const at::Tensor& delta, Gradients& grad) {
  const auto type = in.accumulate();
  const int64_t groups = in.key.size(-2), more = in.more_keys->size(1);
  const auto query = grouped(in.query, groups, type), grad_rows = grouped(grad_out, groups, type);
  const auto lse_rows = grouped(lse.unsqueeze(-1), groups, type),
             delta_rows = grouped(delta.unsqueeze(-1), groups, type);
  const auto keys = tokens(*in.more_keys, type), values = tokens(*in.more_values, type);
  auto grad_query = at::zeros_like(query), grad_keys = at::zeros_like(keys),
       grad_values = at::zeros_like(values);
  each_block(query, more, [&](int64_t begin, int64_t size) {
    const auto q = query.narrow(2, begin, size) * in.scale, g = grad_rows.narrow(2, begin, size);
    const auto p = (at::matmul(q, keys.transpose(2, 3)) - lse_rows.narrow(2, begin, size)).exp();
    const auto ds = p * (at::matmul(g, values.transpose(2, 3)) - delta_rows.narrow(2, begin, size));
    grad_query.narrow(2, begin, size).copy_(at::matmul(ds, keys) * in.scale);
    grad_keys += at::matmul(ds.transpose(2, 3), q);
    grad_values += at::matmul(p.transpose(2, 3), g);
  });
  const auto own = in.query.scalar_type();
  grad.query = (grad.query.to(type) + ungrouped(grad_query, in.query.sizes())).to(own);
  grad.more_keys = grad_keys.transpose(1, 2).to(own);
  grad.more_values = grad_values.transpose(1, 2).to(own);
}

}  // namespace halcyon::neighborhood
