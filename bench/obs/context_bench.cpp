// SPDX-License-Identifier: Apache-2.0
// A million observations sorted by pixel with all their columns.
#include <torch/torch.h>

#include <algorithm>

#include "bench/support/compare.h"
#include "bench/support/harness.h"
#include "bench/support/observations.h"
#include "halcyon/ops/pixel_attention/obs_context.h"

namespace halcyon::bench {
namespace {

constexpr int64_t kRows = 1000000, kPixels = 98304, kMeta = 30, kIds = 500;

// Bytes: values, features and three ids, read and written; the pixels, read.
Case context() {
  torch::manual_seed(1);
  const auto obs = torch::randn({kRows}), meta = torch::randn({kRows, kMeta});
  const auto ids = [] { return torch::randint(kIds, {kRows}, torch::kLong); };
  const auto type = ids(), channel = ids(), platform = ids();
  const auto flat_idx = scattered(ragged_counts(kPixels, kRows));
  const auto out = std::make_shared<ObsContext>();
  Case c;
  c.run = [=] {
    *out = prepare_obs_context(obs, meta, type, channel, platform, flat_idx, kPixels);
  };
  c.bytes = kRows * (2 * ((1 + kMeta) * sizeof(float) + 3 * sizeof(int64_t)) + sizeof(int64_t));
  c.deviation = [=] {
    const auto order = std::get<1>(at::sort(flat_idx, std::optional<bool>(true), /*dim=*/0));
    const auto off = [&](const at::Tensor& sorted, const at::Tensor& column) {
      return difference(sorted, column.index_select(0, order));
    };
    return std::max({off(out->obs, obs), off(out->float_metadata, meta), off(out->obs_type, type),
                     off(out->channel, channel), off(out->platform, platform),
                     difference(out->cu_seqlens_k.slice(0, 1).to(at::kLong),
                                at::bincount(flat_idx, {}, kPixels).cumsum(0))});
  };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  add("prepare_obs_context/1M_meta30/fwd/fp32", context);
  return run(argc, argv);
}
