// SPDX-License-Identifier: Apache-2.0
// The integer work before a model call: production has 98 304 pixels a sample, a batch of eight
// samples 786 432.
#include <ATen/ATen.h>
#include <torch/torch.h>

#include <string>
#include <utility>

#include "bench/support/compare.h"
#include "bench/support/harness.h"
#include "bench/support/observations.h"
#include "halcyon/ops/pixel_attention/packing.h"

namespace halcyon::bench {

struct Size {
  int64_t rows, pixels;
  at::Tensor counts() const { return ragged_counts(pixels, rows); }
};
constexpr Size kSample{1000000, 98304}, kBatch{10000000, 786432};

namespace {

// Bytes: ids in, order and counts out.
Case sorting(Size size, bool sorted = false) {
  auto flat_idx = scattered(size.counts());
  if (sorted) flat_idx = std::get<0>(flat_idx.sort());
  const auto packed = std::make_shared<std::tuple<at::Tensor, at::Tensor>>();
  Case c;
  c.run = [=] { *packed = sort_and_pack(flat_idx, size.pixels); };
  c.bytes = 12.0 * static_cast<double>(size.rows) + 8.0 * static_cast<double>(size.pixels);
  c.deviation = [=] {
    const auto& [order, counts] = *packed;
    const auto expected = std::get<1>(at::sort(flat_idx, std::optional<bool>(true), /*dim=*/0));
    return std::max(difference(order.to(at::kLong), expected),
                    difference(counts, at::bincount(flat_idx, {}, size.pixels)));
  };
  return c;
}

Case offsets(Size size) {
  const auto counts = size.counts();
  const auto out = std::make_shared<at::Tensor>();
  Case c;
  c.run = [=] { *out = counts_to_cu_seqlens(counts); };
  c.bytes = 12.0 * static_cast<double>(size.pixels);
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

Case group_map(Size size) {
  const auto counts = size.counts();
  const auto cu = counts_to_cu_seqlens(counts);
  const auto map = std::make_shared<PixelGroupMap>();
  Case c;
  c.run = [=] { *map = build_pixel_group_map(cu); };
  c.bytes = 8.0 * static_cast<double>(size.pixels);
  c.deviation = [=] {
    return difference(map->program_pixels.to(at::kLong), expected_pixels(counts));
  };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  for (const auto& [name, size] : {std::pair("1M_98304px", kSample), {"10M_786432px", kBatch}}) {
    const std::string sort = "sort_and_pack/";
    add(sort + name + "/fwd", [=] { return sorting(size); });
    add(sort + name + "_ascending/fwd", [=] { return sorting(size, /*sorted=*/true); });
  }
  for (const auto size : {kSample, kBatch}) {
    const auto pixels = std::to_string(size.pixels) + "px/fwd";
    add("counts_to_cu_seqlens/" + pixels, [=] { return offsets(size); });
    add("build_pixel_group_map/" + pixels, [=] { return group_map(size); });
  }
  return run(argc, argv);
}
