// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pixel_attention/packing.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "halcyon/ops/pixel_attention/obs_context.h"
#include "tests/ops/ops_test.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using test::expect_error;
using test::identical;

at::Tensor ints(std::vector<int32_t> values) {
  return at::tensor(values, at::kInt);
}

// Sorts stably by comparison, which the counting sort must agree with.
void expect_stable_sort(const at::Tensor& flat_idx, int64_t total) {
  const auto [order, counts] = sort_and_pack(flat_idx, total);
  EXPECT_EQ(order.scalar_type(), at::kInt);
  EXPECT_EQ(counts.scalar_type(), at::kLong);
  const auto expected =
      std::get<1>(at::sort(flat_idx, /*stable=*/std::optional<bool>(true), /*dim=*/0));
  EXPECT_TRUE(identical(order.to(at::kLong), expected));
  EXPECT_TRUE(identical(counts, at::bincount(flat_idx, {}, total)));
}

TEST(SortAndPack, LiteralExample) {
  const auto [order, counts] = sort_and_pack(ints({2, 0, 2, 1, 0, 2}), 4);
  EXPECT_TRUE(identical(order, ints({1, 4, 3, 0, 2, 5})));
  EXPECT_TRUE(identical(counts, at::tensor({2, 1, 3, 0}, at::kLong)));
}

TEST(SortAndPack, GoldensWithTiesInInputOrder) {
  HALCYON_NEEDS_SHARED();
  const auto g = test::golden("healda/packing");
  for (const auto& [name, config] : g.config.items()) {
    SCOPED_TRACE(name);
    const auto [order, counts] =
        sort_and_pack(g.at("in." + name + ".flat_idx"), config.at("total_pixels").get<int64_t>());
    const auto out = "out." + name + ".";
    EXPECT_TRUE(identical(order, g.at(out + "sorted_order_stable")));
    EXPECT_TRUE(identical(counts, g.at(out + "counts")));
    const auto offsets = counts_to_cu_seqlens(counts);
    EXPECT_TRUE(identical(offsets, g.at(out + "cu_seqlens_k")));
    const auto map = build_pixel_group_map(offsets);
    EXPECT_TRUE(identical(map.program_ptr, g.at(out + "program_ptr")));
    EXPECT_TRUE(identical(map.program_pixels, g.at(out + "program_pixels")));
  }
}

TEST(SortAndPack, AgreesWithAComparisonSort) {
  at::manual_seed(1);
  for (const auto type : {at::kInt, at::kLong}) {
    for (const int64_t rows : {0, 1, 7, 1000, 200001}) {
      for (const int64_t total : {1, 5, 3000, 700000}) {
        expect_stable_sort(at::randint(total, {rows}, type), total);
      }
    }
  }
  expect_stable_sort(at::randint(50, {300, 3}, at::kLong).select(1, 1), 50);
}

TEST(SortAndPack, OrderedAndCrowdedIds) {
  at::manual_seed(3);
  for (const auto type : {at::kInt, at::kLong}) {
    for (const int64_t rows : {1, 2, 65537, 140001}) {
      for (const int64_t total : {2, 513, 98304}) {
        SCOPED_TRACE(fmt::format("{} rows, {} pixels", rows, total));
        const auto ascending = std::get<0>(at::sort(at::randint(total, {rows}, type)));
        expect_stable_sort(ascending, total);
        expect_stable_sort(ascending.flip(0), total);
        expect_stable_sort(at::full({rows}, total - 1, type), total);
        // one row out of order, at the end and at the edge of a block
        for (const int64_t row : {rows - 1, std::min<int64_t>(rows - 1, 65536)}) {
          auto almost = ascending.clone();
          almost[row].fill_(0);
          expect_stable_sort(almost, total);
        }
      }
    }
  }
}

TEST(SortAndPack, FarMorePixelsThanRows) {
  constexpr int64_t kTotal = (int64_t{1} << 25) + 70000;  // 16 bits below more buckets than usual
  const auto flat_idx =
      at::tensor({kTotal - 1, int64_t{5}, kTotal - 1, int64_t{1} << 24}, at::kLong);
  const auto [order, counts] = sort_and_pack(flat_idx, kTotal);
  EXPECT_TRUE(identical(order, ints({1, 3, 0, 2})));
  EXPECT_EQ(counts.sum().item<int64_t>(), 4);
  EXPECT_TRUE(identical(counts.index_select(0, flat_idx), at::tensor({2, 1, 2, 1}, at::kLong)));
}

TEST(SortAndPack, SameForAnyNumberOfThreads) {
  at::manual_seed(2);
  const int threads = at::get_num_threads();
  const auto random = at::randint(900, {400000}, at::kInt);
  for (const auto& flat_idx : {random, std::get<0>(at::sort(random))}) {
    at::set_num_threads(1);
    const auto [order, counts] = sort_and_pack(flat_idx, 900);
    for (const int more : {2, 3, 7, 16}) {
      at::set_num_threads(more);
      const auto others = sort_and_pack(flat_idx, 900);
      EXPECT_TRUE(identical(order, std::get<0>(others)));
      EXPECT_TRUE(identical(counts, std::get<1>(others)));
    }
  }
  at::set_num_threads(threads);
}

TEST(SortAndPack, RefusesWhatItCannotSort) {
  expect_error("[sort_and_pack] expected flat_idx in [0, 3), got 3 at row 1", [] {
    sort_and_pack(ints({0, 3, 1}), 3);
  });
  expect_error("[sort_and_pack] expected flat_idx in [0, 3), got -1 at row 1", [] {
    sort_and_pack(ints({0, -1}), 3);
  });
  // the first of a late block; ascending ids are checked at their ends alone
  auto late = at::randint(9, {200000}, at::kInt);
  late[150001].fill_(9);
  expect_error("got 9 at row 150001", [&] { sort_and_pack(late, 9); });
  expect_error("got -3 at row 0", [] { sort_and_pack(ints({-3, 0, 1}), 3); });
  expect_error("got 3 at row 2", [] { sort_and_pack(ints({0, 1, 3}), 3); });
  expect_error("in [0, 0)", [] { sort_and_pack(ints({0}), 0); });
  expect_error("int32 or int64", [] { sort_and_pack(at::zeros({3}), 3); });
  expect_error("rank 1", [] { sort_and_pack(at::zeros({3, 1}, at::kInt), 3); });
  for (const int64_t pixels : {int64_t{-1}, int64_t{1} << 31, int64_t{1} << 62})
    expect_error("total_pixels in 0..2147483647", [=] { sort_and_pack(ints({}), pixels); });
  expect_error("got 4294967296 at row 0",
               [] { sort_and_pack(at::tensor({int64_t{1} << 32}, at::kLong), 1); });
}

TEST(CountsToCuSeqlens, LiteralEmptyAndWrong) {
  EXPECT_TRUE(
      identical(counts_to_cu_seqlens(at::tensor({5, 0, 3, 4}, at::kLong)), ints({0, 5, 5, 8, 12})));
  EXPECT_TRUE(identical(counts_to_cu_seqlens(ints({5, 0, 3, 4})), ints({0, 5, 5, 8, 12})));
  EXPECT_TRUE(identical(counts_to_cu_seqlens(ints({})), ints({0})));
  expect_error("counts >= 0", [] { counts_to_cu_seqlens(ints({1, -2})); });
  EXPECT_TRUE(identical(counts_to_cu_seqlens(at::tensor({4, 9, 1, 9}, at::kLong).slice(0, 0, 4, 2)),
                        ints({0, 4, 5})));
  const auto most = std::numeric_limits<int64_t>::max();
  expect_error("at most 2147483647", [=] {
    counts_to_cu_seqlens(at::tensor({most, most, int64_t{2}}, at::kLong));
  });
  expect_error("got -9223372036854775808", [=] {
    counts_to_cu_seqlens(at::tensor({-most - 1, -most - 1}, at::kLong));
  });
  EXPECT_TRUE(identical(counts_to_cu_seqlens(ints({1 << 30, (1 << 30) - 1})),
                        ints({0, 1 << 30, std::numeric_limits<int32_t>::max()})));
  expect_error("at most 2147483647", [] {
    counts_to_cu_seqlens(at::tensor({int64_t{1} << 30, int64_t{1} << 30}, at::kLong));
  });
}

TEST(PixelGroupMap, LiteralExamples) {
  auto map = build_pixel_group_map(ints({0, 5, 5, 8, 12, 212}));
  EXPECT_TRUE(identical(map.program_ptr, ints({0, 1, 3, 4})));
  EXPECT_TRUE(identical(map.program_pixels, ints({4, 0, 2, 3})));
  map = build_pixel_group_map(at::zeros({4}, at::kLong));
  EXPECT_TRUE(identical(map.program_ptr, ints({0})));
  EXPECT_TRUE(identical(map.program_pixels, ints({})));
}

// Counts beyond the usual, alone and in most pixels: the median is one of them, or the threshold
// is.
TEST(PixelGroupMap, ManyObservationsInAPixel) {
  auto map = build_pixel_group_map(ints({0, 1023, 2047, 3072, 3073, 9073, 9073}), 2.0);
  EXPECT_TRUE(identical(map.program_pixels, ints({4, 0, 1, 2, 3})));  // median 1024
  EXPECT_TRUE(identical(map.program_ptr, ints({0, 1, 3, 5})));
  const auto offsets = at::tensor({0, 5000, 12000, 21000, 21001}, at::kLong);
  map = build_pixel_group_map(offsets, 1.0);  // counts 5000, 7000, 9000, 1
  EXPECT_TRUE(identical(map.program_pixels, ints({0, 1, 2, 3})));
  map = build_pixel_group_map(offsets, 1.5);
  EXPECT_TRUE(identical(map.program_pixels, ints({2, 0, 1, 3})));
  EXPECT_TRUE(identical(map.program_ptr, ints({0, 1, 3, 4})));
  map = build_pixel_group_map(offsets.repeat_interleave(2).slice(0, 1), 1.5);
  EXPECT_TRUE(identical(map.program_pixels, ints({4, 0, 2, 6})));
  for (const double mult : {-1.0, 0.0})
    EXPECT_EQ(build_pixel_group_map(offsets, mult).program_ptr.size(0), 5);
  EXPECT_EQ(build_pixel_group_map(offsets, INFINITY).program_ptr.size(0), 3);
}

TEST(PixelGroupMap, Goldens) {
  HALCYON_NEEDS_SHARED();
  const auto g = test::golden("healda/pixel_group_map");
  int cases = 0;
  for (const auto& [name, counts] : g.config.items()) {
    for (const auto* mult : {"1.0", "2.0", "3.5"}) {
      const auto key = name + ".m" + mult + ".";
      SCOPED_TRACE(key);
      const auto offsets = g.at("in." + key + "cu_seqlens_k");
      EXPECT_TRUE(
          identical(counts_to_cu_seqlens(at::tensor(counts.get<std::vector<int64_t>>(), at::kLong)),
                    offsets));
      const auto map = build_pixel_group_map(offsets, std::stod(mult));
      EXPECT_TRUE(identical(map.program_ptr, g.at("out." + key + "program_ptr")));
      EXPECT_TRUE(identical(map.program_pixels, g.at("out." + key + "program_pixels")));
      ++cases;
    }
  }
  EXPECT_EQ(cases, 30);
}

TEST(PixelGroupMap, RefusesOffsetsThatAreNone) {
  expect_error("begin with 0", [] { build_pixel_group_map(ints({1, 2})); });
  expect_error("ascend, got 2 after 3", [] { build_pixel_group_map(ints({0, 3, 2})); });
  expect_error("got none", [] { build_pixel_group_map(ints({})); });
  expect_error("NaN", [] { build_pixel_group_map(ints({0, 1}), NAN); });
}

TEST(PixelGroupMap, MovesAsACopy) {
  const auto map = build_pixel_group_map(ints({0, 2, 3}));
  const auto copy = map.to(at::kCPU, at::kBFloat16);
  EXPECT_TRUE(identical(copy.program_ptr, map.program_ptr));
  EXPECT_NE(copy.program_ptr.data_ptr(), map.program_ptr.data_ptr());
}

TEST(ObsContext, Golden) {
  HALCYON_NEEDS_SHARED();
  const auto g = test::golden("healda/prepare_obs_context");
  const auto context = prepare_obs_context(
      g.at("in.obs"), g.at("in.float_metadata"), g.at("in.obs_type"), g.at("in.channel"),
      g.at("in.platform"), g.at("in.flat_idx"), g.config.at("total_pixels").get<int64_t>());
  EXPECT_TRUE(identical(context.obs, g.at("out_stable.obs")));
  EXPECT_TRUE(identical(context.float_metadata, g.at("out_stable.float_metadata")));
  EXPECT_TRUE(identical(context.obs_type, g.at("out_stable.obs_type")));
  EXPECT_TRUE(identical(context.channel, g.at("out_stable.channel")));
  EXPECT_TRUE(identical(context.platform, g.at("out_stable.platform")));
  EXPECT_TRUE(identical(context.cu_seqlens_k, g.at("out.cu_seqlens_k")));
  EXPECT_EQ(context.max_seqlen_k, g.config.at("max_seqlen_k").get<int64_t>());
  ASSERT_TRUE(context.group_map.has_value());
  EXPECT_TRUE(identical(context.group_map->program_ptr, g.at("out.program_ptr")));
  EXPECT_TRUE(identical(context.group_map->program_pixels, g.at("out.program_pixels")));
}

ObsContext small_context(at::Tensor obs, int64_t total = 3, bool group_map = true) {
  const int64_t rows = obs.size(0);
  const auto ids = at::arange(rows, at::kInt);
  return prepare_obs_context(obs, at::ones({rows, 2}, obs.options()), ids, ids + 10, ids + 20,
                             at::arange(rows, at::kLong).remainder(2), total, group_map);
}

TEST(ObsContext, SortsEveryRowAlikeAndKeepsGradients) {
  const auto obs = at::arange(5, at::kDouble).requires_grad_();
  const auto context = small_context(obs);
  EXPECT_TRUE(identical(context.channel, ints({10, 12, 14, 11, 13})));
  EXPECT_TRUE(identical(context.cu_seqlens_k, ints({0, 3, 5, 5})));
  EXPECT_EQ(context.max_seqlen_k, 3);
  (context.obs * at::tensor({1.0, 2.0, 3.0, 4.0, 5.0}, at::kDouble)).sum().backward();
  EXPECT_TRUE(identical(obs.grad(), at::tensor({1.0, 4.0, 2.0, 5.0, 3.0}, at::kDouble)));
}

TEST(ObsContext, FeaturesOfAnyTypeAndStrideKeepGradients) {
  at::manual_seed(6);
  constexpr int64_t kRows = 20000;
  const auto flat = at::randint(70, {kRows}, at::kLong), ids = at::zeros({kRows}, at::kInt);
  const auto order = std::get<1>(at::sort(flat, std::optional<bool>(true), /*dim=*/0));
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    for (const int64_t width : {0, 1, 30, 33}) {
      const auto meta = at::randn({width, kRows}, at::kFloat).to(type).t().requires_grad_();
      const auto obs = at::randn({kRows}, at::kFloat).to(type);
      const auto sorted = prepare_obs_context(obs, meta, ids, ids, ids, flat, 70).float_metadata;
      EXPECT_TRUE(identical(sorted, meta.index_select(0, order)));
      const auto weight = at::randn_like(sorted);
      const auto grads = torch::autograd::grad({sorted}, {meta}, {weight}),
                 expected = torch::autograd::grad({meta.index_select(0, order)}, {meta}, {weight});
      EXPECT_TRUE(identical(grads[0], expected[0]));
    }
  }
}

TEST(ObsContext, TwiceDifferentiable) {
  const auto obs = at::arange(1, 6, at::kDouble).requires_grad_();
  const auto cubes = small_context(obs).obs.pow(3).sum();
  const auto grad = torch::autograd::grad({cubes}, {obs}, {}, {}, /*create_graph=*/true)[0];
  EXPECT_TRUE(identical(grad, 3 * obs * obs));
  EXPECT_TRUE(identical(torch::autograd::grad({grad.sum()}, {obs})[0], 6 * obs));
}

TEST(ObsContext, EmptyAndWithoutMap) {
  const auto context = small_context(at::empty({0}), 4, false);
  EXPECT_TRUE(identical(context.cu_seqlens_k, ints({0, 0, 0, 0, 0})));
  EXPECT_EQ(context.max_seqlen_k, 0);
  EXPECT_FALSE(context.group_map.has_value());
  EXPECT_EQ(small_context(at::empty({0}), 0).cu_seqlens_k.size(0), 1);
}

TEST(ObsContext, MovesAndCastsFloatingTensorsOnly) {
  const auto context = small_context(at::rand({4}));
  const auto half = context.to(at::kBFloat16);
  EXPECT_EQ(half.obs.scalar_type(), at::kBFloat16);
  EXPECT_EQ(half.float_metadata.scalar_type(), at::kBFloat16);
  EXPECT_EQ(half.channel.scalar_type(), at::kInt);
  EXPECT_EQ(half.max_seqlen_k, 2);
  ASSERT_TRUE(half.group_map.has_value());
  EXPECT_TRUE(identical(half.group_map->program_ptr, context.group_map->program_ptr));
  EXPECT_TRUE(identical(context.to(at::Device(at::kCPU)).obs, context.obs));
  expect_error("floating", [&] { context.to(at::kInt); });
}

TEST(ObsContext, RefusesColumnsThatDoNotFit) {
  const auto f = at::zeros({3}), m = at::zeros({3, 2});
  const auto i = at::zeros({3}, at::kInt), shorter = at::zeros({2}, at::kInt);
  expect_error("obs of rank 1", [&] { prepare_obs_context(m, m, i, i, i, i, 1); });
  expect_error("float_metadata", [&] { prepare_obs_context(f, f, i, i, i, i, 1); });
  expect_error("obs_type", [&] { prepare_obs_context(f, m, shorter, i, i, i, 1); });
  expect_error("channel", [&] { prepare_obs_context(f, m, i, f, i, i, 1); });
  expect_error("platform", [&] { prepare_obs_context(f, m, i, i, shorter, i, 1); });
  expect_error("flat_idx", [&] { prepare_obs_context(f, m, i, i, i, shorter, 1); });
  expect_error("rank 1", [&] { ObsContext(f, m, i, i, i, m, 0); });
}

}  // namespace
}  // namespace halcyon
