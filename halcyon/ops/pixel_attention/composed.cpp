// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "halcyon/ops/pixel_attention/backends.h"
#include "halcyon/ops/pixel_attention/offsets.h"

namespace halcyon::pixel_attention_detail {
namespace {

// Pixels whose tokens are padded to a common length.
struct Batch {
  at::Tensor pixels;  // (p,)
  at::Tensor index;   // (p, n) rows of tokens; the last row of the pixel where padded
  at::Tensor valid;   // (p, n)
};

std::vector<Batch> make_batches(const Inputs& in) {
  const auto offsets = host_offsets(in.cu_seqlens, "pixel_attention");
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  const auto count = [&](int64_t p) { return offset[p + 1] - offset[p]; };
  std::vector<int64_t> order;
  for (int64_t p = 0; p < in.q.size(0); ++p) {
    if (count(p) > 0) order.push_back(p);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return count(a) > count(b); });

  // each batch holds p * n scores and p * max(d, D) weighted sums a head
  constexpr int64_t kElements = int64_t{1} << 24;
  const int64_t heads = in.q.size(1), width = std::max(in.q.size(2), in.tokens.size(1));
  std::vector<Batch> batches;
  const auto device = in.q.device();
  for (size_t first = 0; first < order.size();) {
    const int64_t longest = count(order[first]);
    const int64_t per_pixel = heads * std::max(longest, width);
    const int64_t size =
        std::clamp<int64_t>(kElements / per_pixel, 1, static_cast<int64_t>(order.size() - first));
    const auto pixels = at::tensor(at::ArrayRef<int64_t>(order.data() + first, size), at::kLong);
    const auto begin = offsets.index_select(0, pixels).to(device).unsqueeze(1);
    const auto end = offsets.index_select(0, pixels + 1).to(device).unsqueeze(1);
    const auto index = begin + at::arange(longest, begin.options()).unsqueeze(0);
    batches.push_back({pixels.to(device), at::minimum(index, end - 1), index < end});
    first += size;
  }
  return batches;
}

// (p, H, a) x (n_kv, a, b) -> (p, H, b), each head with the matrix of its key and value head
at::Tensor per_kv_head(const at::Tensor& x, const at::Tensor& matrices) {
  const int64_t pixels = x.size(0), n_kv = matrices.size(0);
  const auto rows = x.reshape({pixels, n_kv, -1, x.size(2)}).transpose(0, 1).flatten(1, 2);
  const auto product = at::bmm(rows, matrices).unflatten(1, {pixels, x.size(1) / n_kv});
  return product.transpose(0, 1).reshape({pixels, x.size(1), matrices.size(2)});
}

// sum over pixels and heads of a_h b_h^T: (p, H, a), (p, H, b) -> (n_kv, a, b)
at::Tensor outer_per_kv_head(const at::Tensor& a, const at::Tensor& b, int64_t n_kv) {
  const auto rows = [&](const at::Tensor& x) {
    return x.reshape({x.size(0), n_kv, -1, x.size(2)}).transpose(0, 1).flatten(1, 2);
  };
  return at::bmm(rows(a).transpose(1, 2), rows(b));
}

struct Folded {
  at::ScalarType type;
  at::Tensor tokens, w_k, w_v;  // (N, D), (n_kv, d, D) twice
  explicit Folded(const Inputs& in)
      : type(in.accumulate()),
        tokens(in.tokens.to(type)),
        w_k(in.w_k.to(type).unflatten(0, {in.n_kv, -1})),
        w_v(in.w_v.to(type).unflatten(0, {in.n_kv, -1})) {}
  at::Tensor gather(const Batch& batch) const {
    return tokens.index_select(0, batch.index.flatten()).unflatten(0, batch.index.sizes());
  }
};

at::Tensor scores(const at::Tensor& folded_q, const at::Tensor& tokens, const Batch& batch) {
  return at::bmm(folded_q, tokens.transpose(1, 2))
      .masked_fill(batch.valid.logical_not().unsqueeze(1),
                   -std::numeric_limits<double>::infinity());
}

}  // namespace

at::ScalarType Inputs::accumulate() const {
  const bool wide = q.scalar_type() == at::kDouble || tokens.scalar_type() == at::kDouble ||
                    w_k.scalar_type() == at::kDouble || w_v.scalar_type() == at::kDouble ||
                    (b_v && b_v->scalar_type() == at::kDouble);
  return wide ? at::kDouble : at::kFloat;
}

Forward forward_composed(const Inputs& in) {
  // sums stay in the accumulation type whatever autocast says
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const Folded f(in);
  auto out = at::zeros_like(in.q, at::MemoryFormat::Contiguous);
  auto lse = at::zeros({in.q.size(0), in.q.size(1)}, in.q.options().dtype(f.type));
  for (const auto& batch : make_batches(in)) {
    const auto q = in.q.index_select(0, batch.pixels).to(f.type);
    const auto tokens = f.gather(batch);
    const auto s = scores(per_kv_head(q, f.w_k) * in.scale, tokens, batch);
    const auto log_sum = s.logsumexp(-1, /*keepdim=*/true);
    const auto weighted = at::bmm((s - log_sum).exp(), tokens);
    auto o = per_kv_head(weighted, f.w_v.transpose(1, 2));
    if (in.b_v) {
      const auto bias = in.b_v->to(f.type).view({in.n_kv, 1, -1});
      o = o + bias.expand({-1, in.q.size(1) / in.n_kv, -1}).reshape({1, in.q.size(1), -1});
    }
    out.index_copy_(0, batch.pixels, o.to(out.scalar_type()));
    lse.index_copy_(0, batch.pixels, log_sum.squeeze(-1));
  }
  return {out, lse};
}

Gradients backward_composed(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const Folded f(in);
  const auto options = in.q.options().dtype(f.type);
  Gradients grad{at::zeros(in.q.sizes(), options), at::zeros(in.tokens.sizes(), options),
                 at::zeros(f.w_k.sizes(), options), at::zeros(f.w_v.sizes(), options),
                 in.b_v ? at::zeros({in.n_kv, in.q.size(2)}, options) : at::Tensor()};
  for (const auto& batch : make_batches(in)) {
    const auto q = in.q.index_select(0, batch.pixels).to(f.type);
    const auto g = grad_out.index_select(0, batch.pixels).to(f.type);
    const auto tokens = f.gather(batch);
    const auto folded_q = per_kv_head(q, f.w_k) * in.scale;
    const auto log_sum = lse.index_select(0, batch.pixels).unsqueeze(-1);
    const auto p = (scores(folded_q, tokens, batch) - log_sum).exp();
    const auto weighted = at::bmm(p, tokens);
    const auto grad_weighted = per_kv_head(g, f.w_v);
    const auto delta = (grad_weighted * weighted).sum(-1, /*keepdim=*/true);
    const auto grad_s = p * (at::bmm(grad_weighted, tokens.transpose(1, 2)) - delta);
    const auto grad_folded = at::bmm(grad_s, tokens) * in.scale;
    const auto grad_tokens =
        at::bmm(grad_s.transpose(1, 2), folded_q) + at::bmm(p.transpose(1, 2), grad_weighted);

    grad.q.index_copy_(0, batch.pixels, per_kv_head(grad_folded, f.w_k.transpose(1, 2)));
    // each token lies in one pixel: no row is written twice
    grad.tokens.index_copy_(
        0, batch.index.masked_select(batch.valid),
        grad_tokens.flatten(0, 1).index_select(0, batch.valid.flatten().nonzero().squeeze(1)));
    grad.w_k += outer_per_kv_head(q, grad_folded, in.n_kv);
    grad.w_v += outer_per_kv_head(g, weighted, in.n_kv);
    if (in.b_v) grad.b_v += g.unflatten(1, {in.n_kv, -1}).sum(at::IntArrayRef({0, 2}));
  }
  grad.w_k = grad.w_k.flatten(0, 1);
  grad.w_v = grad.w_v.flatten(0, 1);
  if (in.b_v) grad.b_v = grad.b_v.flatten();
  return grad;
}

}  // namespace halcyon::pixel_attention_detail
