// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/features.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "tests/obs/support.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/paths.h"

namespace halcyon::obs {
namespace {

using test::identical;
using test::kLayer;
using test::message_of;
using test::near;
using test::says;

Metadata golden_input(const test::Golden& g) {
  return {g.at("in.target_time_sec"),
          g.at("in.time_ns"),
          g.at("in.lon"),
          g.at("in.lat"),
          g.at("in.height"),
          g.at("in.pressure"),
          g.at("in.scan_angle"),
          g.at("in.sat_zenith_angle"),
          g.at("in.sol_zenith_angle")};
}

TEST(Features, AgreeWithTheGoldens) {
  HALCYON_NEEDS_SHARED();
  const auto g = test::golden("healda/obs_features");
  const auto in = golden_input(g);
  EXPECT_TRUE(near(local_solar_time(in.lon, in.time_ns), g.at("out.local_solar_time"), kLayer));
  EXPECT_TRUE(near(float_metadata(in, 28), g.at("out.features28"), kLayer));
  EXPECT_TRUE(near(float_metadata(in, 30), g.at("out.features30"), kLayer));
}

// healda_release 5.6, written out with ATen in double.
at::Tensor written_out_50(const Metadata& in) {
  const auto fo = [](const at::Tensor& x, int n) {
    std::vector<at::Tensor> parts;
    for (int k = 1; k <= n; ++k) parts.push_back(at::sin(x * k));
    for (int k = 1; k <= n; ++k) parts.push_back(at::cos(x * k));
    return at::stack(parts, 1);
  };
  const auto d = [](const at::Tensor& x) { return x.to(at::kDouble); };
  const auto seconds = at::floor_divide(in.time_ns, 1000000000).remainder(86400);
  const auto solar = (d(seconds) / 3600 + d(in.lon) / 15).remainder(24);
  const auto dt = d(in.time_ns - in.target_time_sec * 1000000000) / 86400e9;
  const auto two_pi = 2 * M_PI, radians = M_PI / 180;
  const auto common = at::cat({fo(solar * (two_pi / 24), 2), at::stack({dt, dt * dt}, 1), fo(dt, 1),
                               fo(d(in.lat) * radians, 1)},
                              1);
  const auto satellite = at::cat(
      {fo(d(in.scan_angle) * (two_pi / 50), 3), fo(d(in.sat_zenith_angle) * (two_pi / 90), 4),
       fo(d(in.sol_zenith_angle) * (two_pi / 180), 3)},
      1);
  const auto conventional = at::cat({fo((d(in.height) / 60000).clamp(0, 1) * two_pi, 5),
                                     fo((d(in.pressure) / 1100).clamp(0, 1) * two_pi, 5)},
                                    1);
  const auto is_satellite = in.height.isnan().unsqueeze(1);
  const auto zero = at::zeros_like(satellite);
  return at::cat({common, at::where(is_satellite, satellite, zero),
                  at::where(is_satellite, zero, conventional)},
                 1)
      .to(at::kFloat);
}

TEST(Features, FiftyAgreeWithTheFormula) {
  HALCYON_NEEDS_SHARED();
  const auto in = golden_input(test::golden("healda/obs_features"));
  const auto features = float_metadata(in, 50);
  EXPECT_EQ(features.sizes(), (std::vector<int64_t>{400, 50}));
  EXPECT_TRUE(near(features, written_out_50(in), kLayer));
  EXPECT_TRUE(identical(features.slice(1, 0, 10), float_metadata(in, 30).slice(1, 0, 10)));
}

Metadata some_rows(int64_t n) {
  const auto uniform = [n](float low, float high) { return at::rand({n}) * (high - low) + low; };
  auto height = uniform(-100, 70000);
  height.slice(0, 0, n / 2).fill_(NAN);
  return {at::full({n}, int64_t{1'650'000'000}, at::kLong),
          at::randint(1'649'900'000, 1'650'100'000, {n}, at::kLong) * 1'000'000'000 + 123,
          uniform(-180, 360),
          uniform(-90, 90),
          height,
          uniform(0, 1200),
          uniform(-60, 60),
          uniform(0, 70),
          uniform(0, 180)};
}

TEST(Features, DoNotDependOnThreadsStridesOrTargetRank) {
  const auto in = some_rows(20'001);
  for (const int64_t layout : {28, 30, 50}) {
    const auto expected = float_metadata(in, layout);
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    EXPECT_TRUE(identical(float_metadata(in, layout), expected));
    at::set_num_threads(threads);
    auto strided = in;
    strided.lon = at::stack({in.lon, in.lat}, 1).select(1, 0);
    strided.target_time_sec = in.target_time_sec[0];
    strided.height = in.height.to(at::kDouble);
    EXPECT_TRUE(identical(float_metadata(strided, layout), expected));
  }
}

TEST(Features, NanRules) {
  auto in = some_rows(2);
  in.height = at::tensor({NAN, 100.f});
  in.pressure = at::tensor({NAN, NAN});
  in.scan_angle = at::tensor({NAN, NAN});
  const auto f28 = float_metadata(in, 28);
  EXPECT_FALSE(f28.isnan().any().item<bool>());
  EXPECT_EQ(f28[0][6].item<float>(), 0);
  EXPECT_EQ(f28[0][22].item<float>(), 0);
  const auto f30 = float_metadata(in, 30);
  EXPECT_TRUE(f30[0].slice(0, 10, 16).isnan().all().item<bool>());  // scan angle
  EXPECT_FALSE(f30[0].slice(0, 16, 30).isnan().any().item<bool>());
  EXPECT_TRUE(f30[1].slice(0, 20, 30).isnan().all().item<bool>());  // pressure
  EXPECT_FALSE(f30[1].slice(0, 10, 20).isnan().any().item<bool>());
  const auto f50 = float_metadata(in, 50);
  EXPECT_TRUE(f50[0].slice(0, 10, 16).isnan().all().item<bool>());
  EXPECT_TRUE((f50[0].slice(0, 30, 50) == 0).all().item<bool>());
  EXPECT_TRUE((f50[1].slice(0, 10, 30) == 0).all().item<bool>());
}

TEST(Features, LocalSolarTimeStaysBelow24) {
  const auto lon = at::tensor({0.f, 180.f, -180.f, 360.f, -1e-6f, 15.f});
  const auto ns = at::tensor(
      {int64_t{0}, int64_t{43'200'000'000'000}, int64_t{0}, int64_t{0}, int64_t{0}, int64_t{-1}},
      at::kLong);
  const auto hours = local_solar_time(lon, ns);
  // the last: one nanosecond before 1970 is second 86399 of its day
  EXPECT_TRUE(near(hours, at::tensor({0.f, 0.f, 12.f, 0.f, 0.f, 0.99972222f}), 1e-6));
  EXPECT_TRUE((hours < 24).all().item<bool>());
  EXPECT_EQ(local_solar_time(at::empty({0}), at::empty({0}, at::kLong)).numel(), 0);
}

TEST(Features, RefuseWrongInputs) {
  auto in = some_rows(3);
  EXPECT_TRUE(says(message_of([&] { float_metadata(in, 29); }), "28, 30 or 50, got 29"));
  in.lat = at::zeros({2});
  EXPECT_TRUE(says(message_of([&] { float_metadata(in); }), "expected lat of shape (3,)"));
  in.lat = at::zeros({3}, at::kLong);
  EXPECT_TRUE(says(message_of([&] { float_metadata(in); }), "lat as float32, got Long"));
  in.lat = at::zeros({3});
  in.time_ns = at::zeros({3});
  EXPECT_TRUE(says(message_of([&] { float_metadata(in); }), "time_ns as int64, got Float"));
  EXPECT_TRUE(says(message_of([&] { float_metadata({}); }), "lon"));
}

TEST(Features, LayoutsHaveNames) {
  EXPECT_EQ(feature_layout("50").width, 50);
  EXPECT_TRUE(says(message_of([] { feature_layout("31"); }), "expected a layout of 28, 30, 50"));
  auto table = test::table_of({{"2022-04-15T06:00:00", "a", 280, 10, 20}});
  table.set("height", at::tensor({50.f}), "m");
  table.set("pressure", at::tensor({1000.f}), "hPa");
  const auto target = at::full({1}, int64_t{1'649'991'600}, at::kLong);  // 03 UTC
  const auto made = feature_layout("30").make(table, target, {});
  EXPECT_NEAR(made[0][4].item<float>(), 0.125, 1e-6);
  EXPECT_NEAR(made[0][8].item<float>(), std::sin(10 * M_PI / 180), 1e-6);
  EXPECT_NEAR(made[0][20].item<float>(), std::sin(2 * M_PI * 1000 / 1100), 1e-5);
}

}  // namespace
}  // namespace halcyon::obs
