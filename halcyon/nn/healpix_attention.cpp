// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/healpix_attention.h"

#include <ATen/Functions.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"

namespace halcyon {
namespace {

constexpr const char* kName = "SpatialSelfAttention";

}  // namespace

SpatialSelfAttentionImpl::SpatialSelfAttentionImpl(int64_t embed_dim, int64_t num_heads,
                                                   double dropout, bool bias,
                                                   const std::string& attn_backend)
    : torch::nn::Module(kName),
      embed_dim_(embed_dim),
      num_heads_(num_heads),
      dropout_(dropout),
      manual_(attn_backend == "manual") {
  nn::check_positive(kName, "embed_dim", embed_dim);
  nn::check_positive(kName, "num_heads", num_heads);
  HALCYON_CHECK(embed_dim % num_heads == 0, kName,
                "embed_dim ({}) must be divisible by num_heads ({})", embed_dim, num_heads);
  HALCYON_CHECK(attn_backend == "auto" || attn_backend == "sdpa" || manual_, kName,
                "expected attn_backend \"auto\", \"sdpa\" or \"manual\", got \"{}\"", attn_backend);
  nn::check_rate(kName, "dropout", dropout);
  qkv_proj_ = register_module("qkv_proj", nn::Linear(embed_dim, 3 * embed_dim, bias));
  out_proj_ = register_module("out_proj", nn::Linear(embed_dim, embed_dim, bias));
}

at::Tensor SpatialSelfAttentionImpl::forward(const at::Tensor& x) {
  nn::check_rank(kName, "x", x, 3, "(B, N, embed_dim)");
  nn::check_width(kName, "x", x, embed_dim_);
  nn::check_input(kName, "x", x, qkv_proj_->weight);
  const int64_t batch = x.size(0), points = x.size(1), d = embed_dim_ / num_heads_;
  const auto qkv =
      qkv_proj_->forward(x).view({batch, points, 3, num_heads_, d}).permute({2, 0, 3, 1, 4});
  const auto q = qkv[0], k = qkv[1], v = qkv[2];
  at::Tensor y;
  if (manual_) {
    const auto scores = at::matmul(q, k.transpose(-2, -1)) / std::sqrt(static_cast<double>(d));
    y = at::matmul(at::dropout(at::softmax(scores, -1), dropout_, is_training()), v);
  } else {
    y = at::scaled_dot_product_attention(q, k, v, {}, is_training() ? dropout_ : 0.0);
  }
  return out_proj_->forward(y.transpose(1, 2).reshape({batch, points, embed_dim_}));
}

}  // namespace halcyon
