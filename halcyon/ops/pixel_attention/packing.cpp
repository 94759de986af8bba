// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pixel_attention/packing.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <vector>

#include "halcyon/ops/checks.h"

namespace halcyon {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

[[noreturn]] void out_of_range(const at::Tensor& flat_idx, int64_t total_pixels) {
  const auto bad = at::logical_or(flat_idx < 0, flat_idx >= total_pixels).nonzero()[0];
  const auto row = bad.item<int64_t>();
  throw_error(ErrorKind::argument, "sort_and_pack",
              fmt::format("expected flat_idx in [0, {}), got {} at row {}", total_pixels,
                          flat_idx[row].item<int64_t>(), row));
}

// The rows are cut into blocks; each counts its own pixels, so that all may place rows at once. The
// result is the stable order, whatever the number of blocks.
template <class Index>
void counting_sort(const at::Tensor& flat_idx, int64_t total, int32_t* order, int64_t* counts) {
  const Index* index = flat_idx.const_data_ptr<Index>();
  const int64_t rows = flat_idx.size(0);
  constexpr int64_t kRowsPerBlock = 1 << 16;
  const int64_t useful = total <= rows ? rows / kRowsPerBlock : 1;
  const int64_t blocks =
      std::clamp<int64_t>(at::get_num_threads(), 1, std::max<int64_t>(useful, 1));
  const auto begin_of = [&](int64_t block) { return rows * block / blocks; };

  std::vector<int32_t> table(static_cast<size_t>(blocks * total));  // rows of a pixel, then offsets
  std::atomic<bool> bad{false};
  at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      int32_t* count = table.data() + block * total;
      for (int64_t row = begin_of(block); row < begin_of(block + 1); ++row) {
        const int64_t pixel = index[row];
        if (pixel < 0 || pixel >= total) [[unlikely]] {
          bad.store(true, std::memory_order_relaxed);
          return;
        }
        ++count[pixel];
      }
    }
  });
  if (bad.load()) out_of_range(flat_idx, total);

  int32_t place = 0;
  for (int64_t pixel = 0; pixel < total; ++pixel) {
    const int32_t start = place;
    for (int64_t block = 0; block < blocks; ++block) {
      int32_t& entry = table[block * total + pixel];
      place += std::exchange(entry, place);
    }
    counts[pixel] = place - start;
  }
  at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      int32_t* next = table.data() + block * total;
      for (int64_t row = begin_of(block); row < begin_of(block + 1); ++row) {
        order[next[index[row]]++] = static_cast<int32_t>(row);
      }
    }
  });
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> sort_and_pack(const at::Tensor& flat_idx, int64_t total_pixels) {
  check_index(flat_idx, -1, "sort_and_pack", "flat_idx");
  HALCYON_CHECK(total_pixels >= 0 && total_pixels <= kInt32Max, "sort_and_pack",
                "expected total_pixels in 0..{}, got {}", kInt32Max, total_pixels);
  const int64_t rows = flat_idx.size(0);
  HALCYON_CHECK(rows <= kInt32Max, "sort_and_pack", "expected at most {} rows, got {}", kInt32Max,
                rows);
  if (!flat_idx.is_cpu()) {
    if (rows > 0 &&
        (flat_idx.min().item<int64_t>() < 0 || flat_idx.max().item<int64_t>() >= total_pixels)) {
      out_of_range(flat_idx, total_pixels);
    }
    const auto order =
        std::get<1>(at::sort(flat_idx, /*stable=*/std::optional<bool>(true), /*dim=*/0));
    return {order.to(at::kInt), at::bincount(flat_idx, {}, total_pixels)};
  }
  if (rows == 0) return {at::empty({0}, at::kInt), at::zeros({total_pixels}, at::kLong)};
  auto order = at::empty({rows}, at::kInt), counts = at::empty({total_pixels}, at::kLong);
  const auto index = flat_idx.contiguous();
  if (index.scalar_type() == at::kInt) {
    counting_sort<int32_t>(index, total_pixels, order.mutable_data_ptr<int32_t>(),
                           counts.mutable_data_ptr<int64_t>());
  } else {
    counting_sort<int64_t>(index, total_pixels, order.mutable_data_ptr<int32_t>(),
                           counts.mutable_data_ptr<int64_t>());
  }
  return {order, counts};
}

at::Tensor counts_to_cu_seqlens(const at::Tensor& counts) {
  check_index(counts, -1, "counts_to_cu_seqlens", "counts");
  auto sums = at::zeros({counts.size(0) + 1}, counts.options().dtype(at::kLong));
  if (counts.size(0) == 0) return sums.to(at::kInt);
  HALCYON_CHECK(counts.min().item<int64_t>() >= 0, "counts_to_cu_seqlens",
                "expected counts >= 0, got {}", counts.min().item<int64_t>());
  auto inclusive = sums.narrow(0, 1, counts.size(0));
  at::cumsum_out(inclusive, counts, 0, at::kLong);
  // counts of 2^31 - 1 and less cannot wrap a 64-bit sum in any memory
  const bool fits = counts.max().item<int64_t>() <= kInt32Max &&
                    inclusive[counts.size(0) - 1].item<int64_t>() <= kInt32Max;
  HALCYON_CHECK(fits, "counts_to_cu_seqlens", "expected at most {} observations in all, got more",
                kInt32Max);
  return sums.to(at::kInt);
}

}  // namespace halcyon
