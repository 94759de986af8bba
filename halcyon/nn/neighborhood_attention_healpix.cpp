// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/neighborhood_attention_healpix.h"

#include <ATen/ATen.h>

#include <limits>

#include "halcyon/ops/hidden.h"
#include "halcyon/ops/neighborhood/sphere/seen_mask.h"

namespace halcyon {
namespace {

constexpr const char* kName = "NeighborhoodAttentionHEALPix";

}  // namespace

at::Tensor attend_healpix(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const HealpixNeighborhood& window, double scale, double dropout) {
  if (dropout == 0) return neighborhood_attention_healpix(q, k, v, window, scale);
  const auto hidden = healpix_seen(window).to(q.device()).logical_not();
  const auto scores = seen_scores((q * scale).transpose(1, 2), k.transpose(1, 2), hidden,
                                  -std::numeric_limits<double>::infinity());
  const auto weights = at::dropout(scores.softmax(-1), dropout, /*train=*/true);
  return seen_sums(weights, v.transpose(1, 2), hidden).transpose(1, 2);
}

NeighborhoodAttentionHEALPixImpl::NeighborhoodAttentionHEALPixImpl(
    NeighborhoodAttentionHEALPixOptions options)
    : ProjectedAttentionImpl(kName, {options.dim, options.num_heads, options.qkv_bias,
                                     options.qk_scale, options.attn_drop, options.proj_drop}),
      window_(std::move(options.window)) {
  check_healpix_window(kName, window_);
  if (window_.region) window_.region = window_.region->cpu().clone();
}

at::Tensor NeighborhoodAttentionHEALPixImpl::forward(const at::Tensor& x) {
  const auto [q, k, v] = split(x, 1);
  return joined(attend_healpix(q, k, v, window_, scale(), weight_dropout()));
}

}  // namespace halcyon
