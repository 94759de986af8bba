// SPDX-License-Identifier: Apache-2.0
// A million observations, and ten, sorted by pixel with all their columns.
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "bench/support/compare.h"
#include "bench/support/harness.h"
#include "bench/support/observations.h"
#include "halcyon/ops/pixel_attention/obs_context.h"

namespace halcyon::bench {
namespace {

constexpr int64_t kMeta = 30, kIds = 500;

// Bytes: values, features and three ids, read and written; the pixels, read.
Case context(int64_t rows, int64_t pixels, bool backward) {
  torch::manual_seed(1);
  const auto obs = torch::randn({rows});
  const auto ids = [=] { return torch::randint(kIds, {rows}, torch::kLong); };
  const auto type = ids(), channel = ids(), platform = ids();
  const auto flat_idx = scattered(ragged_counts(pixels, rows));
  const auto out = std::make_shared<ObsContext>();
  Case c;
  const auto meta = torch::randn({rows, kMeta}).requires_grad_(backward);
  const auto grad_out = backward ? torch::randn({rows, kMeta}) : at::Tensor();
  c.run = [=] {
    *out = prepare_obs_context(obs, meta, type, channel, platform, flat_idx, pixels);
    if (!backward) return;
    meta.mutable_grad().reset();
    out->float_metadata.backward(grad_out);
  };
  const double features = kMeta * sizeof(float), rest = sizeof(float) + 3 * sizeof(int64_t);
  c.bytes =
      static_cast<double>(rows) * (2 * ((backward ? 2 : 1) * features + rest) + sizeof(int64_t));
  c.deviation = [=]() -> double {
    const auto order = std::get<1>(at::sort(flat_idx, std::optional<bool>(true), /*dim=*/0));
    if (backward && difference(meta.grad().index_select(0, order), grad_out) != 0) return INFINITY;
    const auto off = [&](const at::Tensor& sorted, const at::Tensor& column) {
      return difference(sorted.detach(), column.detach().index_select(0, order));
    };
    return std::max({off(out->obs, obs), off(out->float_metadata, meta), off(out->obs_type, type),
                     off(out->channel, channel), off(out->platform, platform),
                     difference(out->cu_seqlens_k.slice(0, 1).to(at::kLong),
                                at::bincount(flat_idx, {}, pixels).cumsum(0))});
  };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  const auto add_context = [](const std::string& name, int64_t rows, int64_t pixels) {
    add(name + "/fwd/fp32", [=] { return context(rows, pixels, false); });
    add(name + "/fwd_bwd/fp32", [=] { return context(rows, pixels, true); });
  };
  add_context("prepare_obs_context/1M_meta30", 1000000, 98304);
  add_context("prepare_obs_context/10M_meta30", 10000000, 786432);
  return run(argc, argv);
}
