// SPDX-License-Identifier: Apache-2.0
// Windows that cover their axes: plain attention, by torch's flash kernel. What that kernel
// computes depends on how many threads it may use, so every call of it here has one and the calls
// are shared out, in pieces that depend on the problem alone.
#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "halcyon/ops/neighborhood/backends.h"
#include "halcyon/ops/pieces.h"

namespace halcyon::neighborhood {
namespace {

// Queries of a forward piece: four of the kernel's largest blocks. Short sequences join up to as
// many.
constexpr int64_t kQueries = 1024;

bool covers(const Axis& axis) {
  return axis.length == 1 || (axis.kernel == axis.length && !axis.causal);
}

// The one case of causality that is torch's too.
bool is_causal(const std::vector<Axis>& axes) {
  return axes.size() == 1 && !covers(axes[0]) && axes[0].causal && axes[0].stride == 1 &&
         axes[0].kernel == axes[0].length;
}

// (B, T, H, c) of some sequences and heads, in the type of the sums, as (B, H, T, c).
at::Tensor part(const at::Tensor& t, int64_t sequence, int64_t sequences, int64_t head,
                int64_t heads, at::ScalarType type) {
  const auto own = t.narrow(0, sequence, sequences).narrow(2, head, heads).to(type);
  return (own.stride(-1) == 1 ? own : own.contiguous()).transpose(1, 2);
}

class Plain {
 public:
  explicit Plain(const Inputs& in)
      : type_(in.accumulate()),
        query_(in.query.flatten(1, -3)),
        key_(in.key.flatten(1, -3)),
        value_(in.value.flatten(1, -3)),
        shared_(query_.size(2) / key_.size(2)),
        joined_(std::min(std::max<int64_t>(kQueries / query_.size(1), 1), query_.size(0))),
        causal_(is_causal(in.axes)),
        scale_(in.scale) {}

  Output forward() const {
    auto shape = query_.sizes().vec();
    const auto out = at::empty(shape, query_.options());
    shape.pop_back();
    const auto lse = at::empty(shape, query_.options().dtype(type_));
    const int64_t tokens = query_.size(1), step = causal_ ? tokens : std::min(tokens, kQueries),
                  steps = (tokens + step - 1) / step;
    each(steps, [&](int64_t b, int64_t size, int64_t group, int64_t i) {
      const int64_t first = i * step, count = std::min(step, tokens - first),
                    head = group * shared_;
      const auto here = [&](const at::Tensor& t) {
        return t.narrow(0, b, size).narrow(1, first, count).narrow(2, head, shared_);
      };
      const auto [o, l] = at::_scaled_dot_product_flash_attention_for_cpu(
          queries(query_, b, size, group).narrow(2, first, count), keys(key_, b, size, group),
          keys(value_, b, size, group), 0, causal_, {}, scale_);
      here(out).copy_(o.transpose(1, 2));
      here(lse).copy_(l.transpose(1, 2));
    });
    return {out, lse};
  }

  Gradients backward(const Output& output, const at::Tensor& grad_out) const {
    const auto out = output.out.flatten(1, -3), lse = output.lse.flatten(1, -2),
               grad = grad_out.flatten(1, -3);
    Gradients result;
    result.query = at::empty_like(query_, at::MemoryFormat::Contiguous);
    result.key = at::empty_like(key_, at::MemoryFormat::Contiguous);
    result.value = at::empty_like(value_, at::MemoryFormat::Contiguous);
    each(1, [&](int64_t b, int64_t size, int64_t group, int64_t) {
      const auto [q, k, v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          queries(grad, b, size, group), queries(query_, b, size, group),
          keys(key_, b, size, group), keys(value_, b, size, group), queries(out, b, size, group),
          queries(lse.unsqueeze(-1), b, size, group).squeeze(-1), 0, causal_, {}, scale_);
      const auto into = [&](const at::Tensor& to, const at::Tensor& from) {
        to.narrow(0, b, size)
            .narrow(2, group * from.size(1), from.size(1))
            .copy_(from.transpose(1, 2));
      };
      into(result.query, q);
      into(result.key, shared_ == 1 ? k : k.sum(1, true));
      into(result.value, shared_ == 1 ? v : v.sum(1, true));
    });
    return result;
  }

 private:
  // f(sequence, sequences, group, i) for i < count.
  template <class F>
  void each(int64_t count, const F& f) const {
    const int64_t batch = query_.size(0), groups = key_.size(2),
                  pieces = (batch + joined_ - 1) / joined_ * groups * count;
    each_piece(pieces, [&](int64_t piece) {
      const at::AutoDispatchBelowADInplaceOrView below;
      const int64_t sequence = piece / count / groups * joined_;
      f(sequence, std::min(joined_, batch - sequence), piece / count % groups, piece % count);
    });
  }

  at::Tensor queries(const at::Tensor& t, int64_t b, int64_t size, int64_t group) const {
    return part(t, b, size, group * shared_, shared_, type_);
  }
  at::Tensor keys(const at::Tensor& t, int64_t b, int64_t size, int64_t group) const {
    return part(t, b, size, group, 1, type_).expand({-1, shared_, -1, -1});
  }

  at::ScalarType type_;
  at::Tensor query_, key_, value_;
  int64_t shared_, joined_;
  bool causal_;
  double scale_;
};

}  // namespace

Output dense_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                       bool causal, double scale) {
  const auto type = accumulate_type(query);
  const int64_t groups = key.size(2);
  const auto keys = [&](const at::Tensor& t) {  // (B, G, 1, S, c)
    return t.to(type).transpose(1, 2).unsqueeze(2);
  };
  const auto q = query.to(type).unflatten(2, {groups, -1}).permute({0, 2, 3, 1, 4}) * scale;
  auto scores = at::matmul(q, keys(key).transpose(-1, -2));
  if (causal) {
    const auto seen = at::ones({query.size(1), key.size(1)}, scores.options().dtype(at::kBool));
    scores =
        scores.masked_fill(seen.tril().logical_not(), -std::numeric_limits<double>::infinity());
  }
  const auto lse = at::logsumexp(scores, -1, true);
  const auto tokens = [](const at::Tensor& t) { return t.permute({0, 3, 1, 2, 4}).flatten(2, 3); };
  const auto out = at::matmul((scores - lse).exp(), keys(value));
  return {tokens(out).to(query.scalar_type()), tokens(lse).squeeze(-1)};
}

bool is_plain(const Inputs& in) {
  return (std::all_of(in.axes.begin(), in.axes.end(), covers) || is_causal(in.axes)) && !in.bias &&
         in.query.size(-1) == in.value.size(-1) && in.query.numel() > 0;
}

namespace {

Output on_grid(const Output& flat, at::IntArrayRef query) {
  return {flat.out.reshape(query), flat.lse.reshape(query.slice(0, query.size() - 1))};
}

}  // namespace

Output compose_plain(const Inputs& in) {
  const auto flat = [](const at::Tensor& t) { return t.flatten(1, -3); };
  return on_grid(
      dense_attention(flat(in.query), flat(in.key), flat(in.value), is_causal(in.axes), in.scale),
      in.query.sizes());
}

Output forward_plain(const Inputs& in) {
  return on_grid(Plain(in).forward(), in.query.sizes());
}

Gradients backward_plain(const Inputs& in, const Output& output, const at::Tensor& grad_out) {
  auto grad = Plain(in).backward(output, grad_out);
  grad.query = grad.query.view(in.query.sizes());
  grad.key = grad.key.view(in.key.sizes());
  grad.value = grad.value.view(in.value.sizes());
  return grad;
}

}  // namespace halcyon::neighborhood
