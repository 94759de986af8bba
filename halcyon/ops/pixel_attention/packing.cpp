// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pixel_attention/packing.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <limits>

#include "halcyon/base/large_pages.h"
#include "halcyon/ops/checks.h"
#include "halcyon/ops/pixel_attention/counting_sort.h"

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

// The sums, or false where a count is negative or the sum exceeds int32.
template <class Count>
bool inclusive_sums(const Count* count, int64_t pixels, int32_t* sums) {
  int64_t sum = 0, bits = 0;
  sums[0] = 0;
  for (int64_t p = 0; p < pixels; ++p) {
    bits |= count[p];  // all are in 0 .. 2^31 - 1, or this is not: no 64-bit sum wraps
    sum = static_cast<int64_t>(static_cast<uint64_t>(sum) + static_cast<uint64_t>(count[p]));
    sums[p + 1] = static_cast<int32_t>(sum);
  }
  return bits >= 0 && bits <= kInt32Max && sum <= kInt32Max;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> sort_and_pack(const at::Tensor& flat_idx, int64_t total_pixels) {
  check_index(flat_idx, {}, "sort_and_pack", "flat_idx");
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
  if (total_pixels == 0) out_of_range(flat_idx, total_pixels);
  auto order = on_large_pages(at::empty({rows}, at::kInt)),
       counts = on_large_pages(at::empty({total_pixels}, at::kLong));
  const auto index = flat_idx.contiguous();
  const auto sort = [&](const auto* ids) {
    return pixel_attention_detail::counting_sort(ids, rows, total_pixels,
                                                 order.mutable_data_ptr<int32_t>(),
                                                 counts.mutable_data_ptr<int64_t>());
  };
  const bool good = index.scalar_type() == at::kInt ? sort(index.const_data_ptr<int32_t>())
                                                    : sort(index.const_data_ptr<int64_t>());
  if (!good) out_of_range(flat_idx, total_pixels);
  return {order, counts};
}

at::Tensor counts_to_cu_seqlens(const at::Tensor& counts) {
  check_index(counts, {}, "counts_to_cu_seqlens", "counts");
  const auto input = counts.cpu().contiguous();
  auto sums = at::empty({input.size(0) + 1}, at::kInt);
  const auto sum = [&](const auto* count) {
    return inclusive_sums(count, input.size(0), sums.mutable_data_ptr<int32_t>());
  };
  const bool good = input.scalar_type() == at::kInt ? sum(input.const_data_ptr<int32_t>())
                                                    : sum(input.const_data_ptr<int64_t>());
  if (!good) {
    const auto least = input.min().item<int64_t>();
    HALCYON_CHECK(least >= 0, "counts_to_cu_seqlens", "expected counts >= 0, got {}", least);
    throw_error(ErrorKind::argument, "counts_to_cu_seqlens",
                fmt::format("expected at most {} observations in all, got more", kInt32Max));
  }
  return sums.to(counts.device());
}

}  // namespace halcyon
