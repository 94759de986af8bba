// SPDX-License-Identifier: Apache-2.0
#include "bench/support/layer_reference.h"

#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/ops/rope.h"
#include "halcyon/ops/temporal/backends.h"

namespace halcyon::bench::reference {
namespace {

constexpr double kRmsEps = 1e-6;
constexpr double kHidden = -1e30;  // not infinite: a row of nothing else must have a gradient

at::Tensor normalised(const at::Tensor& x) {
  return x * at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + kRmsEps);
}

}  // namespace

at::Tensor linear(const Named& p, const std::string& key, const at::Tensor& x) {
  const auto bias = p.find(key + ".bias");
  const auto y = at::matmul(x, p.at(key + ".weight").t());
  return bias == p.end() ? y : y + bias->second;
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const std::optional<at::Tensor>& valid) {
  auto scores = at::matmul(q, k.transpose(-1, -2)) / std::sqrt(static_cast<double>(q.size(-1)));
  if (!valid) return at::matmul(scores.softmax(-1), v);
  const auto seen = valid->unsqueeze(-2);
  scores = scores.masked_fill(seen.logical_not(), kHidden);
  return at::matmul(scores.softmax(-1) * seen, v);
}

Padding padding(const at::Tensor& cu_seqlens) {
  const auto cu = cu_seqlens.to(at::kLong);
  const auto begin = cu.slice(0, 0, -1).unsqueeze(1), end = cu.slice(0, 1).unsqueeze(1);
  const auto longest = (end - begin).max().item<int64_t>();
  const auto index = begin + at::arange(longest, at::kLong);
  const auto valid = index < end;
  return {index.where(valid, 0).flatten(), valid};
}

at::Tensor ragged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                            const at::Tensor& cu_seqlens, int64_t n_kv) {
  const auto [index, valid] = padding(cu_seqlens);
  const int64_t pixels = q.size(0), width = q.size(2);
  const auto padded = [&, &rows = index](const at::Tensor& x) {
    return x.index_select(0, rows).view({pixels, -1, n_kv, width}).transpose(1, 2);
  };
  const auto y = attention(q.view({pixels, n_kv, -1, width}), padded(keys), padded(values),
                           valid.unsqueeze(1));
  return y.reshape(q.sizes());
}

at::Tensor spatial_attention(const Named& p, const std::string& prefix, const at::Tensor& x,
                             int64_t heads) {
  const auto qkv = linear(p, prefix + "attn_op.qkv", x).unflatten(-1, {3, heads, -1}).unbind(2);
  const auto per_head = [](const at::Tensor& t) { return t.transpose(1, 2); };
  const auto y =
      attention(per_head(normalised(qkv[0])), per_head(normalised(qkv[1])), per_head(qkv[2]));
  return linear(p, prefix + "attn_op.proj", per_head(y).flatten(2));
}

at::Tensor temporal_attention(const Named& p, const std::string& prefix, const at::Tensor& x,
                              int64_t heads, bool linear_attention) {
  const auto qkv = linear(p, prefix + "qkv", x).unflatten(-1, {3, heads, -1}).unbind(3);
  const auto [cos, sin] = rope_tables(x.size(3) / heads, x.size(1));
  const auto y = temporal_detail::composed(
      {qkv[0], qkv[1], qkv[2], linear_attention, /*causal=*/true, {}, cos, sin});
  return linear(p, prefix + "proj", y.flatten(3));
}

at::Tensor cross_attention(const Named& p, const std::string& prefix, const at::Tensor& h,
                           const at::Tensor& tokens, const at::Tensor& cu_seqlens, int64_t q_heads,
                           int64_t kv_heads) {
  const auto q = linear(p, prefix + "q_proj", h).flatten(0, 2).unflatten(1, {q_heads, -1});
  const auto y = ragged_attention(q, linear(p, prefix + "k_proj", tokens),
                                  linear(p, prefix + "v_proj", tokens), cu_seqlens, kv_heads);
  return linear(p, prefix + "out_proj", y.flatten(1)).view(h.sizes());
}

}  // namespace halcyon::bench::reference
