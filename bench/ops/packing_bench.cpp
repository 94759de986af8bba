// SPDX-License-Identifier: Apache-2.0
// The integer work before a model call: production has 98 304 pixels a sample.
#include <ATen/ATen.h>
#include <torch/torch.h>

#include "bench/support/compare.h"
#include "bench/support/harness.h"
#include "bench/support/observations.h"
#include "halcyon/ops/pixel_attention/packing.h"

namespace halcyon::bench {
namespace {

constexpr int64_t kRows = 1000000, kPixels = 98304;

// Bytes: ids in, order and counts out.
Case sorting() {
  const auto flat_idx = scattered(ragged_counts(kPixels, kRows));
  const auto packed = std::make_shared<std::tuple<at::Tensor, at::Tensor>>();
  Case c;
  c.run = [=] { *packed = sort_and_pack(flat_idx, kPixels); };
  c.bytes = kRows * (sizeof(int64_t) + sizeof(int32_t)) + kPixels * sizeof(int64_t);
  c.deviation = [=] {
    const auto& [order, counts] = *packed;
    const auto expected = std::get<1>(at::sort(flat_idx, std::optional<bool>(true), /*dim=*/0));
    return std::max(difference(order.to(at::kLong), expected),
                    difference(counts, at::bincount(flat_idx, {}, kPixels)));
  };
  return c;
}

Case offsets() {
  const auto counts = ragged_counts(kPixels, kRows);
  const auto out = std::make_shared<at::Tensor>();
  Case c;
  c.run = [=] { *out = counts_to_cu_seqlens(counts); };
  c.bytes = kPixels * (sizeof(int64_t) + sizeof(int32_t));
  c.deviation = [=] { return difference(out->slice(0, 1).to(at::kLong), counts.cumsum(0)); };
  return c;
}

// Large pixels, then small ones, each ascending, by comparison with twice the lower median.
at::Tensor expected_pixels(const at::Tensor& counts) {
  const auto filled = counts.gt(0).nonzero().squeeze(1);
  const auto of_filled = counts.index_select(0, filled);
  const auto small = of_filled.lt(2 * of_filled.median());
  return at::cat({filled.masked_select(small.logical_not()), filled.masked_select(small)});
}

Case group_map() {
  const auto counts = ragged_counts(kPixels, kRows);
  const auto cu = counts_to_cu_seqlens(counts);
  const auto map = std::make_shared<PixelGroupMap>();
  Case c;
  c.run = [=] { *map = build_pixel_group_map(cu); };
  c.bytes = 2 * kPixels * sizeof(int32_t);
  c.deviation = [=] {
    return difference(map->program_pixels.to(at::kLong), expected_pixels(counts));
  };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  add("sort_and_pack/1M_98304px/fwd", sorting);
  add("counts_to_cu_seqlens/98304px/fwd", offsets);
  add("build_pixel_group_map/98304px/fwd", group_map);
  return run(argc, argv);
}
