// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/packing.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/features.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/sphere/healpix.h"
#include "tests/obs/support.h"
#include "tests/support/compare.h"

namespace halcyon::obs {
namespace {

using test::identical;
using test::message_of;
using test::says;
using test::table_of;

const Frames kTwoFrames{{1'396'310'400 /* 2014-04-01 00 UTC */, 1'396'332'000 /* 06 UTC */}};

Table scattered() {
  auto table = table_of({{"2014-04-01T05:00:00", "a", 290, 40, -100},
                         {"2014-04-01T00:00:00", "b", 270, 45, -91},
                         {"2014-04-01T03:00:00", "c", 280, 40, -100},
                         {"2014-04-01T03:00:01", "d", 280, -40, 100},
                         {"2014-03-31T21:00:00", "e", 280, 40, -100},
                         {"2014-04-01T00:00:00", "f", 280, 95, -100}});
  table.set("height", at::full({6}, 100.f), "m");
  table.set("pressure", at::full({6}, 1000.f), "hPa");
  return table;
}

TEST(AssignPixels, PutsRowsIntoFramesAndPixels) {
  const auto region = Region::touching(2, {-140, -60, 20, 60});
  const auto table = scattered();
  const auto found = assign_pixels(table, region, kTwoFrames, 1);
  const auto code = [](Reason r) { return static_cast<int32_t>(r); };
  EXPECT_TRUE(
      identical(found.codes, at::tensor({0, 0, 0, code(Reason::outside_region),
                                         code(Reason::outside_window), code(Reason::position)},
                                        at::kInt)));
  EXPECT_TRUE(identical(found.row, at::tensor({1, 2, 0}, at::kLong)));
  EXPECT_TRUE(identical(found.frame, at::tensor({0, 0, 1}, at::kLong)));
  const auto place = region.index_of(
      healpix::ang2pix(2, at::tensor({-91., -100., -100.}), at::tensor({45., 40., 40.})));
  const auto expected = (2 + found.frame) * region.size() + place;
  EXPECT_TRUE(identical(found.flat_idx, expected));
}

// The released models' own pixels, which differ on the border of a face, only by name.
TEST(AssignPixels, RuleOfTheReleasedModels) {
  const auto table = table_of(
      {{"2014-04-01T00:00:00", "a", 290, 70, -90}, {"2014-04-01T00:00:00", "b", 290, 70, -89.5}});
  const auto region = Region::global(2);
  const auto standard = assign_pixels(table, region, {{1'396'310'400}}),
             released = assign_pixels(table, region, {{1'396'310'400}}, 0, healpix::Rule::healda);
  EXPECT_TRUE(identical(standard.flat_idx, at::tensor({52, 52}, at::kLong)));
  // from float32 places, as the data pipe has them
  const auto own = healpix::ang2pix(2, at::tensor({-90.f, -89.5f}), at::tensor({70.f, 70.f}),
                                    healpix::Order::pad_xy, healpix::Rule::healda);
  EXPECT_TRUE(identical(released.flat_idx, own));
  EXPECT_FALSE(identical(released.flat_idx, standard.flat_idx));
  const auto statistics = normalised(table, {{"t2m", {280, 10}}});
  PackOptions options;
  options.rule = healpix::Rule::healda;
  auto rows = statistics;
  rows.set("height", at::full({2}, 100.f), "m");
  rows.set("pressure", at::full({2}, 1000.f), "hPa");
  const auto offsets = [&](const PackOptions& with) {
    return pack({{rows, {{1'396'310'400}}}}, region, with).context.cu_seqlens_k;
  };
  EXPECT_EQ(offsets({})[53].item<int>() - offsets({})[52].item<int>(), 2);
  EXPECT_EQ(offsets(options)[53].item<int>() - offsets(options)[52].item<int>(), 1);
}

TEST(AssignPixels, WindowsMayOverlap) {
  auto frames = kTwoFrames;
  frames.begin = -6 * 3600;
  const auto found = assign_pixels(scattered(), Region::global(0), frames);
  EXPECT_TRUE(identical(found.row, at::tensor({1, 2, 4, 0, 2, 3}, at::kLong)));
  EXPECT_TRUE(identical(found.frame, at::tensor({0, 0, 0, 1, 1, 1}, at::kLong)));
}

TEST(Pack, MakesTheContextOfABatch) {
  const auto region = Region::touching(2, {-140, -60, 20, 60});
  const auto table = normalised(scattered(), {{"t2m", {280, 10}}});
  PackOptions options;
  options.channel_offset = 7;
  options.sensor = 6;
  const auto packed = pack({{table, kTwoFrames}, {table, kTwoFrames}}, region, options);
  const auto& context = packed.context;
  ASSERT_EQ(context.obs.numel(), 6);
  EXPECT_EQ(context.cu_seqlens_k.numel(), 4 * region.size() + 1);
  EXPECT_EQ(context.cu_seqlens_k[-1].item<int>(), 6);
  // 45 N stands before 40 N in no order that we rely on: compare as sets of a frame
  EXPECT_TRUE(identical(std::get<0>(context.obs.slice(0, 0, 2).sort()), at::tensor({-1.f, 0.f})));
  EXPECT_EQ(context.obs[2].item<float>(), 1);
  EXPECT_TRUE((context.channel == 7).all().item<bool>());
  EXPECT_TRUE((context.obs_type == 6).all().item<bool>());
  EXPECT_EQ(context.float_metadata.size(1), 30);
  // dt of the observation at 05 UTC from the frame of 06 UTC
  EXPECT_NEAR(context.float_metadata[2][4].item<float>(), -1.0 / 24, 1e-6);
  EXPECT_EQ(packed.codes.size(), 2u);
  EXPECT_TRUE(context.group_map.has_value());
}

TEST(Pack, WithoutObservations) {
  const auto table =
      normalised(scattered(), {{"t2m", {280, 10}}}).select(at::empty({0}, at::kLong));
  const auto packed = pack({{table, kTwoFrames}}, Region::global(1));
  EXPECT_EQ(packed.context.obs.numel(), 0);
  EXPECT_EQ(packed.context.float_metadata.sizes(), (std::vector<int64_t>{0, 30}));
  EXPECT_EQ(packed.context.max_seqlen_k, 0);
}

TEST(Pack, RefusesWhatWouldPoisonTheModel) {
  const auto region = Region::global(1);
  EXPECT_TRUE(says(message_of([&] {
                     pack({{scattered(), kTwoFrames}}, region);
                   }),
                   "no column normalised"));
  EXPECT_TRUE(says(message_of([] {
                     normalised(scattered(), {{"mslp", {1e5, 1e3}}});
                   }),
                   "expected statistics of t2m"));
  EXPECT_TRUE(says(message_of([] {
                     normalised(scattered(), {{"t2m", {280, 0}}});
                   }),
                   "positive sd of t2m"));
  auto table = normalised(scattered(), {{"t2m", {280, 10}}});
  table.set("pressure", at::full({6}, NAN), "hPa");
  EXPECT_TRUE(says(message_of([&] { pack({{table, kTwoFrames}}, region); }), "finite features"));
  table = normalised(scattered(), {{"t2m", {280, 10}}});
  table.set("normalised", at::full({6}, NAN));
  EXPECT_TRUE(says(message_of([&] { pack({{table, kTwoFrames}}, region); }), "finite values"));
  EXPECT_TRUE(says(message_of([&] { pack({}, region); }), "expected a sample"));
  EXPECT_TRUE(says(message_of([&] { assign_pixels(table, region, {}); }), "expected a frame"));
  auto frames = kTwoFrames;
  frames.end = frames.begin;
  EXPECT_TRUE(says(message_of([&] { assign_pixels(table, region, frames); }), "begins before"));
  table = normalised(scattered(), {{"t2m", {280, 10}}});
  EXPECT_TRUE(says(message_of([&] {
                     pack({{table, kTwoFrames}, {table, Frames{{0}}}}, region);
                   }),
                   "2 frames in every sample"));
}

}  // namespace
}  // namespace halcyon::obs
