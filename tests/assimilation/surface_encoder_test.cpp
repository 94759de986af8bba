// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/surface_encoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/sphere/healpix.h"
#include "tests/support/compare.h"

namespace halcyon::assimilation {
namespace {

using at::indexing::Slice;
using test::identical;
using test::near;

// Where the row features tell the place inside the token, and that a row is a pixel's mark.
constexpr int64_t kRow = 12, kColumn = 13, kPlaceFeatures = 21, kClockFeatures = 6, kMark = 37;

Region tokens() {
  return Region::touching(2, Box{220, 310, 20, 60});
}

DepartureSet set_of(const std::vector<Departure>& observations) {
  return {parse_time("2014-07-04T06"), observations};
}

TEST(SurfaceEncoder, EveryPixelCarriesItsMark) {
  const auto region = tokens();
  const auto context = SurfaceEncoder(region).encode({set_of({}), set_of({})});
  const int64_t pixels = 2 * region.size();
  EXPECT_TRUE(identical(context.cu_seqlens_k, at::arange(pixels + 1, at::kInt)));
  EXPECT_EQ(context.max_seqlen_k, 1);
  EXPECT_TRUE(context.channel.eq(static_cast<int64_t>(SurfaceEncoder::place)).all().item<bool>());
  EXPECT_TRUE(context.obs.eq(0).all().item<bool>());
  EXPECT_EQ(context.float_metadata.sizes(),
            (std::vector<int64_t>{pixels, SurfaceEncoder::kFeatures}));
  EXPECT_TRUE(context.float_metadata.select(1, kMark).eq(1).all().item<bool>());
  // both elements of the batch have the same time
  EXPECT_TRUE(identical(context.float_metadata.slice(0, 0, region.size()),
                        context.float_metadata.slice(0, region.size())));
}

TEST(SurfaceEncoder, NoAnalysisHasNoRows) {
  const auto context = SurfaceEncoder(tokens()).encode({});
  EXPECT_EQ(context.obs.numel(), 0);
  EXPECT_EQ(context.cu_seqlens_k.numel(), 1);
}

TEST(SurfaceEncoder, RowsAreFiniteSinglePrecisionAndBounded) {
  const auto region = tokens();
  const SurfaceEncoder encoder(region);
  std::vector<Departure> observations;
  for (int i = 0; i < 300; ++i) {
    const double lat = 21 + 0.12 * i, lon = 221 + std::fmod(7.3 * i, 88.0);
    if (!encoder.holds(lat, lon)) continue;
    observations.push_back({lat, lon, static_cast<float>(i % 21 - 10), 0.4f + 0.01f * i, 4,
                            static_cast<float>(i % 4 * 6)});
  }
  ASSERT_GT(observations.size(), 250u);
  const auto context = encoder.encode({set_of(observations)});
  const auto count = static_cast<int64_t>(observations.size());
  EXPECT_EQ(context.obs.scalar_type(), at::kFloat);
  EXPECT_EQ(context.float_metadata.scalar_type(), at::kFloat);
  EXPECT_EQ(context.cu_seqlens_k.scalar_type(), at::kInt);
  EXPECT_EQ(context.obs.numel(), count + region.size());
  EXPECT_EQ(context.channel.eq(static_cast<int64_t>(SurfaceEncoder::place)).sum().item<int64_t>(),
            region.size());
  EXPECT_TRUE(context.float_metadata.isfinite().all().item<bool>());
  const auto smooth = context.float_metadata.slice(1, 0, kPlaceFeatures + kClockFeatures);
  EXPECT_LE(smooth.abs().max().item<float>(), 1 + 1e-6f);
  // ages of less than a day and errors of a few kelvins give features of a few units
  EXPECT_LE(context.float_metadata.abs().max().item<float>(), 4);
}

TEST(SurfaceEncoder, ValuesAreInUnitsOfTheirExpectedSpread) {
  const auto context = SurfaceEncoder(tokens()).encode({set_of({{40, 260, 10, 3, 4, 0}})});
  const auto observed = context.channel.eq(static_cast<int64_t>(SurfaceEncoder::temperature));
  ASSERT_EQ(observed.sum().item<int64_t>(), 1);
  EXPECT_FLOAT_EQ(context.obs.masked_select(observed).item<float>(), 2);  // 10 / hypot(3, 4)
}

// The pixel and the place in it, against the region's own list of children; the encoder counts both
// axes from the other end.
TEST(SurfaceEncoder, PlacesWithinThePixel) {
  const auto region = tokens();
  constexpr int kUp = 3;
  constexpr int64_t kSide = 1 << kUp;
  const auto children = region.children_index(kUp);
  const auto [lon, lat] = region.refined(kUp).centres();
  const SurfaceEncoder encoder(region);
  for (const int64_t token : {int64_t{0}, region.size() / 2, region.size() - 1}) {
    for (int64_t child = 0; child < kSide * kSide; child += 5) {
      const auto at = children[token][child].item<int64_t>();
      const auto context =
          encoder.encode({set_of({{lat[at].item<double>(), lon[at].item<double>(), 1, 1, 1, 0}})});
      const auto row = context.obs.ne(0).nonzero().item<int64_t>();
      EXPECT_EQ(context.cu_seqlens_k[token].item<int>(), row);  // before the pixel's mark
      const auto features = context.float_metadata[row];
      const auto centre = [](int64_t i) { return (2.0 * static_cast<double>(i) + 1) / kSide - 1; };
      EXPECT_NEAR(features[kRow].item<double>(), -centre(child / kSide), 2e-3) << child;
      EXPECT_NEAR(features[kColumn].item<double>(), -centre(child % kSide), 2e-3) << child;
    }
  }
}

TEST(SurfaceEncoder, LongitudesMayBeNegative) {
  const SurfaceEncoder encoder(tokens());
  const auto east = encoder.encode({set_of({{40, 260.3, 1, 1, 2, 6}})}),
             west = encoder.encode({set_of({{40, -99.7, 1, 1, 2, 6}})});
  EXPECT_TRUE(identical(east.cu_seqlens_k, west.cu_seqlens_k));
  EXPECT_TRUE(near(west.float_metadata, east.float_metadata, 1e-5));
}

// The token that quality control names, and a place inside it that lies at the border.
TEST(SurfaceEncoder, BordersOfFaces) {
  const auto region = tokens();
  const SurfaceEncoder encoder(region);
  for (const double lat : {43.0, 50.0, 58.0}) {
    for (const double lon : {-90.0, 270.0, -90 + 1e-9, -90 - 1e-9}) {
      const auto context = encoder.encode({set_of({{lat, lon, 1, 1, 1, 0}})});
      const auto row = context.obs.ne(0).nonzero().item<int64_t>();
      const auto token = region.index_of(
          healpix::ang2pix(2, at::tensor({lon}, at::kDouble), at::tensor({lat}, at::kDouble)));
      EXPECT_EQ(context.cu_seqlens_k[token.item<int64_t>()].item<int64_t>(), row)
          << lat << " " << lon;
      // the meridian is the north-western border of face 3 and the north-eastern one of face 2
      const auto features = context.float_metadata[row];
      EXPECT_GT(features[lon < -90 ? kRow : kColumn].item<double>(), 0.99) << lat << " " << lon;
    }
  }
}

TEST(SurfaceEncoder, AgeAndErrorShowInTheFeatures) {
  const SurfaceEncoder encoder(tokens());
  const auto features = [&](float error, float age) {
    const auto context = encoder.encode({set_of({{40, 260, 1, error, 2, age}})});
    return context.float_metadata.index({context.obs.ne(0)}).squeeze(0).clone();
  };
  const auto base = features(1, 0);
  EXPECT_FALSE(base.equal(features(1, 6)));
  EXPECT_FALSE(features(1, 12).equal(features(1, 18)));
  EXPECT_FALSE(base.equal(features(2, 0)));
  // neither moves the place or the clock
  const Slice where(0, kPlaceFeatures + kClockFeatures);
  EXPECT_TRUE(identical(base.index({where}), features(3, 18).index({where})));
  EXPECT_EQ(base[kMark].item<float>(), 0);
}

TEST(SurfaceEncoder, RefusesWhatLiesOutside) {
  const SurfaceEncoder encoder(tokens());
  EXPECT_TRUE(encoder.holds(40, 260));
  EXPECT_TRUE(encoder.holds(40, -100));
  EXPECT_FALSE(encoder.holds(-40, 260));
  EXPECT_THROW(encoder.encode({set_of({{-40, 260, 1, 1, 1, 0}})}), Error);
}

}  // namespace
}  // namespace halcyon::assimilation
