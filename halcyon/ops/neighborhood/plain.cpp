// SPDX-License-Identifier: Apache-2.0
// Windows that cover their axes: plain attention.
#include <ATen/ATen.h>

#include <algorithm>

#include "halcyon/ops/attention/backends.h"
#include "halcyon/ops/neighborhood/backends.h"

namespace halcyon::neighborhood {
namespace {

bool covers(const Axis& axis) {
  return axis.length == 1 || (axis.kernel == axis.length && !axis.causal);
}

// The one case of causality that is plain attention's too.
bool is_causal(const std::vector<Axis>& axes) {
  return axes.size() == 1 && !covers(axes[0]) && axes[0].causal && axes[0].stride == 1 &&
         axes[0].kernel == axes[0].length;
}

// The axes of tokens as one; half in float, which the kernels have.
attention_detail::Inputs flat(const Inputs& in) {
  const auto type = in.query.scalar_type() == at::kHalf ? at::kFloat : in.query.scalar_type();
  const auto tokens = [&](const at::Tensor& t) { return t.flatten(1, -3).to(type); };
  return {tokens(in.query), tokens(in.key), tokens(in.value), in.scale, is_causal(in.axes)};
}

Output on_grid(const attention_detail::Output& flat, const at::Tensor& query) {
  const auto shape = query.sizes();
  return {flat.out.to(query.scalar_type()).reshape(shape),
          flat.lse.reshape(shape.slice(0, shape.size() - 1))};
}

}  // namespace

bool is_plain(const Inputs& in) {
  return (std::all_of(in.axes.begin(), in.axes.end(), covers) || is_causal(in.axes)) && !in.bias &&
         in.query.size(-1) == in.value.size(-1) && in.query.numel() > 0;
}

Output compose_plain(const Inputs& in) {
  return on_grid(attention_detail::composed(flat(in)), in.query);
}

Output forward_plain(const Inputs& in) {
  return on_grid(attention_detail::forward_cpu(flat(in)), in.query);
}

Gradients backward_plain(const Inputs& in, const Output& output, const at::Tensor& grad_out,
                         const at::Tensor& grad_lse) {
  const auto flattened = flat(in);
  const auto type = flattened.query.scalar_type();
  const auto tokens = [&](const at::Tensor& t) { return t.flatten(1, -3).to(type); };
  const auto like = [](const at::Tensor& t) {
    return at::empty_like(t, at::MemoryFormat::Contiguous);
  };
  const attention_detail::Gradients into{
      like(flattened.query), like(flattened.key), like(flattened.value), {}, {}};
  attention_detail::backward_cpu(flattened, {tokens(output.out), output.lse.flatten(1, -2)},
                                 tokens(grad_out),
                                 grad_lse.defined() ? grad_lse.flatten(1, -2) : grad_lse, into);
  const auto shaped = [](const at::Tensor& t, const at::Tensor& as) {
    return t.to(as.scalar_type()).view(as.sizes());
  };
  Gradients result;
  result.query = shaped(into.query, in.query);
  result.key = shaped(into.key, in.key);
  result.value = shaped(into.value, in.value);
  return result;
}

}  // namespace halcyon::neighborhood
