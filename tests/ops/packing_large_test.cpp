// SPDX-License-Identifier: Apache-2.0
// Ten million observations, every row checked: what is wrong beyond 2^24 or 2^31 only shows here.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "halcyon/ops/pixel_attention/obs_context.h"

namespace halcyon {
namespace {

constexpr int64_t kRows = 10'000'000, kPixels = 786432, kCrowded = 700001;

// Half of the rows in few pixels, a twentieth in one, a third of the pixels empty.
at::Tensor pixels_of_rows() {
  at::manual_seed(3);
  auto flat = (at::rand({kRows}, at::kDouble).pow(3) * (kPixels * 2 / 3)).to(at::kLong);
  flat.slice(0, 1, kRows, 20).fill_(kCrowded);
  flat[kRows - 1].fill_(kPixels - 1);
  return flat;
}

template <class T>
std::span<const T> span_of(const at::Tensor& t) {
  return {t.const_data_ptr<T>(), static_cast<size_t>(t.numel())};
}

std::vector<int64_t> histogram(std::span<const int64_t> flat) {
  std::vector<int64_t> counts(kPixels);
  for (const auto pixel : flat) ++counts[static_cast<size_t>(pixel)];
  return counts;
}

// A feature that tells rows and columns apart, exactly.
float feature(int64_t row, int64_t column) {
  return static_cast<float>((row * 29 + column * 7919) & 0xffffff);
}

TEST(PackingLarge, TenMillionRowsSortedStably) {
  const auto flat = pixels_of_rows();
  const auto id = span_of<int64_t>(flat);
  const auto expected = histogram(id);
  for (const auto& index : {flat, flat.to(at::kInt)}) {
    const auto [order, counts] = sort_and_pack(index, kPixels);
    EXPECT_TRUE(std::ranges::equal(span_of<int64_t>(counts), expected));
    // ascending pairs (pixel, row) with the right counts: each row once
    const auto row = span_of<int32_t>(order);
    ASSERT_EQ(static_cast<int64_t>(row.size()), kRows);
    size_t wrong = row[0] < 0 || row[0] >= kRows;
    for (size_t i = 1; i < row.size() && wrong == 0; ++i) {
      if (row[i] < 0 || row[i] >= kRows) ++wrong;
      if (wrong == 0)
        wrong += std::pair(id[static_cast<size_t>(row[i - 1])], row[i - 1]) >=
                 std::pair(id[static_cast<size_t>(row[i])], row[i]);
    }
    EXPECT_EQ(wrong, 0U);
  }
}

TEST(PackingLarge, OffsetsAndProgramsOfTenMillionRows) {
  const auto [order, counts] = sort_and_pack(pixels_of_rows(), kPixels);
  const auto count = span_of<int64_t>(counts);
  const auto cu = counts_to_cu_seqlens(counts);
  const auto offset = span_of<int32_t>(cu);
  int64_t sum = 0;
  std::vector<int64_t> filled;
  for (size_t p = 0; p < count.size(); ++p) {
    ASSERT_EQ(offset[p], sum);
    sum += count[p];
    if (count[p] > 0) filled.push_back(count[p]);
  }
  EXPECT_EQ(offset.back(), kRows);
  EXPECT_EQ(sum, kRows);

  std::ranges::sort(filled);
  const int64_t limit = 2 * filled[(filled.size() - 1) / 2];
  std::vector<int32_t> expected, small;
  for (size_t p = 0; p < count.size(); ++p) {
    if (count[p] > 0) (count[p] < limit ? small : expected).push_back(static_cast<int32_t>(p));
  }
  std::vector<int32_t> programs(expected.size() + 1);
  std::iota(programs.begin(), programs.end(), 0);
  expected.insert(expected.end(), small.begin(), small.end());
  while (programs.back() < static_cast<int32_t>(expected.size()))
    programs.push_back(std::min(programs.back() + 2, static_cast<int32_t>(expected.size())));
  for (const auto& offsets : {cu, cu.to(at::kLong)}) {
    const auto map = build_pixel_group_map(offsets);
    EXPECT_TRUE(std::ranges::equal(span_of<int32_t>(map.program_pixels), expected));
    EXPECT_TRUE(std::ranges::equal(span_of<int32_t>(map.program_ptr), programs));
  }
}

TEST(PackingLarge, ContextOfTenMillionRows) {
  constexpr int64_t kMeta = 28;
  const auto flat = pixels_of_rows();
  const auto meta = at::empty({kRows, kMeta});
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t c = 0; c < kMeta; ++c)
      meta.mutable_data_ptr<float>()[i * kMeta + c] = feature(i, c);
  }
  const auto row = at::arange(kRows, at::kInt);
  const auto context = prepare_obs_context(row.to(at::kFloat), meta, row, row.remainder(1009), row,
                                           flat, kPixels, /*build_group_map=*/false);
  const auto count = histogram(span_of<int64_t>(flat));
  EXPECT_EQ(context.max_seqlen_k, std::ranges::max(count));
  // the rows in order, by their own numbers
  const auto order = span_of<int32_t>(context.obs_type);
  EXPECT_TRUE(std::ranges::equal(order, span_of<int32_t>(context.platform)));
  const auto id = span_of<int64_t>(flat);
  EXPECT_TRUE(std::ranges::is_sorted(order, {}, [&](int32_t i) { return std::pair(id[i], i); }));
  int64_t wrong = 0;
  for (int64_t i = 0; i < kRows; ++i) {
    const int64_t from = order[static_cast<size_t>(i)];
    wrong += context.obs.const_data_ptr<float>()[i] != static_cast<float>(from);
    wrong += context.channel.const_data_ptr<int32_t>()[i] != from % 1009;
    const float* features = context.float_metadata.const_data_ptr<float>() + i * kMeta;
    for (int64_t c = 0; c < kMeta; ++c) wrong += features[c] != feature(from, c);
  }
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace halcyon
