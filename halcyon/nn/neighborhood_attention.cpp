// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/neighborhood_attention.h"

#include <ATen/Functions.h>
#include <fmt/format.h>

#include <algorithm>

#include "halcyon/base/error.h"
#include "halcyon/nn/parameters.h"
#include "halcyon/ops/neighborhood/arguments.h"
#include "halcyon/ops/neighborhood/unfused.h"
#include "halcyon/ops/tuning/switches.h"

namespace halcyon {
namespace {

constexpr double kBiasDeviation = 0.02;

std::string name_of(int rank) {
  return fmt::format("NeighborhoodAttention{}D", rank);
}

NeighborhoodOptions window_of(const NeighborhoodAttentionOptions& options) {
  NeighborhoodOptions window;
  window.kernel_size = options.kernel_size;
  window.dilation = options.dilation;
  window.stride = options.stride;
  window.is_causal = options.is_causal;
  window.periodic = options.periodic;
  return window;
}

bool any_but(int64_t plain, const std::vector<int64_t>& values) {
  return std::any_of(values.begin(), values.end(), [=](int64_t value) { return value != plain; });
}

}  // namespace

void check_neighborhood_module(const char* name, int rank, const NeighborhoodOptions& window,
                               bool rel_pos_bias) {
  for (const auto& axis :
       neighborhood::checked_windows(name, static_cast<std::size_t>(rank), window))
    HALCYON_CHECK_KIND(!rel_pos_bias || !axis.causal, unsupported, name,
                       "expected no rel_pos_bias with a causal axis, got both");
}

NeighborhoodAttentionImpl::NeighborhoodAttentionImpl(int rank,
                                                     const NeighborhoodAttentionOptions& options)
    : ProjectedAttentionImpl(name_of(rank),
                             {options.dim, options.num_heads, options.qkv_bias, options.qk_scale,
                              options.attn_drop, options.proj_drop}),
      rank_(rank),
      window_(window_of(options)),
      fused_(options.fused) {
  check_neighborhood_module(name().c_str(), rank, window_, options.rel_pos_bias);
  if (any_but(1, options.stride) || any_but(0, options.periodic)) fused_ = true;
  if (!options.rel_pos_bias) {
    register_parameter("rpb", {}, /*requires_grad=*/false);
    return;
  }
  std::vector<int64_t> table{options.num_heads};
  for (int axis = 0; axis < rank; ++axis)
    table.push_back(2 * options.kernel_size[options.kernel_size.size() == 1 ? 0 : axis] - 1);
  rpb_ = register_parameter("rpb", nn::empty_parameter(table));
  // NATTEN cuts at +-2, a hundred deviations away, which no draw reaches
  nn::init_normal(rpb_, kBiasDeviation);
}

at::Tensor NeighborhoodAttentionImpl::forward(const at::Tensor& x) {
  constexpr decltype(&na1d) kOperators[] = {na1d, na2d, na3d};
  const auto [q, k, v] = split(x, rank_);
  auto window = window_;
  if (rpb_.defined()) window.rpb = rpb_.to(q.scalar_type());
  if (fused_.value_or(is_fused_na_enabled()) && weight_dropout() == 0) {
    window.scale = scale();
    return joined(kOperators[rank_ - 1](q, k, v, window).out);
  }
  const auto heads_first = [](const at::Tensor& t) { return t.movedim(-2, 1); };
  auto weights = na_qk(rank_, heads_first(q * scale()), heads_first(k), window).softmax(-1);
  weights = at::dropout(weights, weight_dropout(), is_training());
  window.rpb.reset();
  return joined(na_av(rank_, weights, heads_first(v), window).movedim(1, -2));
}

}  // namespace halcyon
