// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/temporal_attention.h"

#include <ATen/Functions.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/ops/temporal/temporal.h"

namespace halcyon {
namespace {

constexpr const char* kName = "TemporalAttention";

void check_table(const char* name, const std::optional<at::Tensor>& table, int64_t frames,
                 int64_t width) {
  HALCYON_CHECK(table && table->defined(), kName, "expected {} with use_rope, got none", name);
  HALCYON_CHECK(table->sizes() == at::IntArrayRef({frames, width}), kName,
                "expected {} ({}, {}), got {}", name, frames, width, describe(*table));
}

}  // namespace

TemporalAttentionImpl::TemporalAttentionImpl(TemporalAttentionOptions options)
    : torch::nn::Module(kName),
      options_(options),
      d_head_(nn::head_width(kName, options.hidden_size, options.num_heads)) {
  HALCYON_CHECK(!options.causal_window || options.is_causal, kName,
                "expected is_causal with causal_window, got causal_window {} alone",
                *options.causal_window);
  if (options.causal_window) nn::check_positive(kName, "causal_window", *options.causal_window);
  HALCYON_CHECK(!options.use_rope || d_head_ % 2 == 0, kName,
                "expected an even head width for rope, got {}", d_head_);
  qkv_ = register_module("qkv", nn::Linear(options.hidden_size, 3 * options.hidden_size));
  proj_ = register_module("proj", nn::Linear(options.hidden_size, options.hidden_size));
}

at::Tensor TemporalAttentionImpl::forward(const at::Tensor& x,
                                          const std::optional<at::Tensor>& rope_cos,
                                          const std::optional<at::Tensor>& rope_sin) {
  nn::check_rank(kName, "x", x, 4, "(B, T, X, C)");
  nn::check_width(kName, "x", x, options_.hidden_size);
  nn::check_input(kName, "x", x, qkv_->weight);
  const int64_t batch = x.size(0), frames = x.size(1), pixels = x.size(2);
  if (options_.use_rope) {
    check_table("rope_cos", rope_cos, frames, d_head_);
    check_table("rope_sin", rope_sin, frames, d_head_);
  }
  const auto qkv = qkv_->forward(x).view({batch, frames, pixels, 3, options_.num_heads, d_head_});
  const bool tables = options_.use_rope;
  const auto y =
      temporal_attention(qkv, options_.linear_attention, options_.is_causal, options_.causal_window,
                         tables ? rope_cos : std::nullopt, tables ? rope_sin : std::nullopt);
  return proj_->forward(y.reshape({batch, frames, pixels, options_.hidden_size}));
}

}  // namespace halcyon
