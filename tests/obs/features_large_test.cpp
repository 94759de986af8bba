// SPDX-License-Identifier: Apache-2.0
// Ten million observations: the last ones are what they are alone.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/obs/features.h"
#include "halcyon/sphere/healpix.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

constexpr int64_t kRows = 10'000'000, kLast = 1001;

TEST(ObservationsLarge, FeaturesAndPixelsOfTheLastRows) {
  at::manual_seed(5);
  const auto uniform = [](double low, double high) {
    return at::rand({kRows}).mul_(high - low).add_(low);
  };
  const auto lon = uniform(-180, 180), lat = uniform(-90, 90), other = uniform(0, 50);
  const auto time = at::arange(kRows, at::kLong).add_(1'700'000'000).mul_(1'000'000'000);
  const auto last = [](const at::Tensor& t) { return t.slice(0, kRows - kLast); };
  const auto features = [&](const auto& of) {
    return obs::float_metadata({at::scalar_tensor(1'700'000'000, at::kLong), of(time), of(lon),
                                of(lat), of(other), of(other), of(other), of(other), of(other)},
                               30);
  };
  EXPECT_TRUE(
      test::identical(last(features([](const at::Tensor& t) { return t; })), features(last)));
  EXPECT_TRUE(test::identical(last(healpix::ang2pix(10, lon, lat)),
                              healpix::ang2pix(10, last(lon), last(lat))));
}

}  // namespace
}  // namespace halcyon
