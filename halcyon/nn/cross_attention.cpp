// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/cross_attention.h"

#include <ATen/Functions.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/ops/pixel_attention/pixel_attention.h"

namespace halcyon {
namespace {

constexpr const char* kName = "PixelCrossAttention";
// the kernels work on tiles of so many query heads
constexpr int64_t kMinQueriesPerKey = 16;

const PixelCrossAttentionKwargs& own(const std::any& kwargs) {
  const auto* given = std::any_cast<PixelCrossAttentionKwargs>(&kwargs);
  HALCYON_CHECK(given, kName,
                "expected cross_attn_kwargs tokens, cu_seqlens_k and max_seqlen_k, got {}",
                kwargs.has_value() ? "others" : "none");
  return *given;
}

}  // namespace

std::any CrossAttentionModuleBase::kwargs_of_pixels(const std::any& /*kwargs*/, int64_t /*first*/,
                                                    int64_t /*count*/) const {
  return {};
}

PixelCrossAttentionImpl::PixelCrossAttentionImpl(PixelCrossAttentionOptions options)
    : CrossAttentionModuleBase(kName), options_(options) {
  nn::check_positive(kName, "hidden_size", options.hidden_size);
  nn::check_positive(kName, "token_dim", options.token_dim);
  nn::check_positive(kName, "d_head", options.d_head);
  nn::check_positive(kName, "n_q_heads", options.n_q_heads);
  const int64_t kv = options.n_kv_heads;
  HALCYON_CHECK(kv >= 1 && (kv <= 2 || kv % 2 == 0), kName,
                "expected n_kv_heads 1 or an even number, got {}", kv);
  HALCYON_CHECK(options.n_q_heads % kv == 0, kName,
                "expected n_q_heads divisible by n_kv_heads, got {} and {}", options.n_q_heads, kv);
  HALCYON_CHECK(options.n_q_heads / kv >= kMinQueriesPerKey, kName,
                "expected n_q_heads / n_kv_heads >= {}, got {} / {}", kMinQueriesPerKey,
                options.n_q_heads, kv);
  const int64_t query_width = options.n_q_heads * options.d_head, key_width = kv * options.d_head;
  const bool bias = options.use_proj_bias;
  q_proj_ = register_module("q_proj", nn::Linear(options.hidden_size, query_width, bias));
  k_proj_ = register_module("k_proj", nn::Linear(options.token_dim, key_width, false));
  v_proj_ = register_module("v_proj", nn::Linear(options.token_dim, key_width, bias));
  out_proj_ = register_module("out_proj", nn::Linear(query_width, options.hidden_size, bias));
}

at::Tensor PixelCrossAttentionImpl::forward(const at::Tensor& hidden_states,
                                            const at::Tensor& tokens,
                                            const at::Tensor& cu_seqlens_k, int64_t max_seqlen_k,
                                            const std::optional<PixelGroupMap>& group_map) {
  nn::check_rank(kName, "hidden_states", hidden_states, 4, "(B, T, X, C)");
  nn::check_width(kName, "hidden_states", hidden_states, options_.hidden_size);
  nn::check_input(kName, "hidden_states", hidden_states, q_proj_->weight);
  nn::check_rank(kName, "tokens", tokens, 2, "(N, token_dim)");
  nn::check_width(kName, "tokens", tokens, options_.token_dim);
  nn::check_input(kName, "tokens", tokens, k_proj_->weight);
  const int64_t batch = hidden_states.size(0), frames = hidden_states.size(1);
  const int64_t pixels = batch * frames * hidden_states.size(2);
  HALCYON_CHECK(
      cu_seqlens_k.defined() && cu_seqlens_k.dim() == 1 && cu_seqlens_k.size(0) == pixels + 1,
      kName, "expected cu_seqlens_k of B * T * X + 1 = {} elements, got {}", pixels + 1,
      describe(cu_seqlens_k));
  const auto q =
      q_proj_->forward(hidden_states).view({pixels, options_.n_q_heads, options_.d_head});
  const double scale = 1.0 / std::sqrt(static_cast<double>(options_.d_head));
  const std::optional<at::Tensor> v_bias =
      options_.use_proj_bias ? std::optional(v_proj_->bias) : std::nullopt;
  const auto y = pixel_attention(q, tokens, k_proj_->weight, v_proj_->weight, cu_seqlens_k,
                                 max_seqlen_k, options_.n_kv_heads, scale, std::nullopt, v_bias,
                                 /*force_fp32=*/false, group_map);
  return out_proj_->forward(
      y.reshape({batch, frames, hidden_states.size(2), options_.n_q_heads * options_.d_head}));
}

at::Tensor PixelCrossAttentionImpl::attend(const at::Tensor& hidden_states,
                                           const std::any& kwargs) {
  const auto& given = own(kwargs);
  return forward(hidden_states, given.tokens, given.cu_seqlens_k, given.max_seqlen_k,
                 given.group_map);
}

std::any PixelCrossAttentionImpl::kwargs_of_pixels(const std::any& kwargs, int64_t first,
                                                   int64_t count) const {
  const auto& given = own(kwargs);
  HALCYON_CHECK(given.cu_seqlens_k.defined() && given.cu_seqlens_k.dim() == 1 &&
                    first + count < given.cu_seqlens_k.size(0),
                kName, "expected cu_seqlens_k of more than {} elements, got {}", first + count,
                describe(given.cu_seqlens_k));
  const auto offsets = given.cu_seqlens_k.narrow(0, first, count + 1);
  const auto begin = offsets[0].item<int64_t>(), end = offsets[count].item<int64_t>();
  HALCYON_CHECK(0 <= begin && begin <= end && end <= given.tokens.size(0), kName,
                "expected cu_seqlens_k that ascends up to the {} tokens, got {} and {}",
                given.tokens.size(0), begin, end);
  // the group map is of all pixels, and a hint only
  return PixelCrossAttentionKwargs{given.tokens.narrow(0, begin, end - begin), offsets - begin,
                                   given.max_seqlen_k};
}

CrossAttentionFactory pixel_cross_attention(const PixelCrossAttentionOptions& options) {
  return [options] { return std::make_shared<PixelCrossAttentionImpl>(options); };
}

}  // namespace halcyon
