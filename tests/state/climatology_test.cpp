// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/climatology.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/time.h"
#include "halcyon/state/area.h"
#include "halcyon/state/read_fields.h"
#include "halcyon/state/split.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::state {
namespace {

using test::identical;
using test::near;

constexpr int64_t kDay = 86400;

// One year of 00 and 12 UTC: at 00 UTC 280 + 10 cos(w d) at the first point and 5 sin(2 w d) at the
// second, at 12 UTC 3 more.
Fields known_cycle() {
  Fields fields{{{"t", "", "", "K"}}, LatLonGrid({0}, {0, 1}), {}, {}};
  std::vector<float> values;
  for (int64_t day = 0; day < 365; ++day)
    for (const int64_t hour : {0, 12}) {
      fields.times.push_back(parse_time("2013-01-01") + day * kDay + hour * 3600);
      const double phase = 2 * std::numbers::pi * static_cast<double>(day + 1) / 365;
      const double add = hour == 12 ? 3 : 0;
      values.push_back(static_cast<float>(280 + 10 * std::cos(phase) + add));
      values.push_back(static_cast<float>(5 * std::sin(2 * phase) + add));
    }
  fields.data = at::tensor(values).view({-1, 1, 2});
  return fields;
}

TEST(Climatology, RecoversAKnownCycle) {
  const Fields fields = known_cycle();
  const Climatology climatology = Climatology::fit(fields, fields.times);
  EXPECT_EQ(climatology.hours(), (std::vector<int64_t>{0, 43200}));
  EXPECT_LT(climatology.anomaly(fields).abs().max().item<double>(), 1e-4);
  // 2 July 2014 is day 183
  const double phase = 2 * std::numbers::pi * 183 / 365;
  const at::Tensor value = climatology.at(parse_time("2014-07-02T12"));
  EXPECT_NEAR(value[0][0].item<double>(), 283 + 10 * std::cos(phase), 1e-4);
  EXPECT_NEAR(value[0][1].item<double>(), 3 + 5 * std::sin(2 * phase), 1e-4);
}

TEST(Climatology, BetweenFittedHoursIsLinearInTime) {
  const Fields fields = known_cycle();
  const Climatology climatology = Climatology::fit(fields, fields.times);
  const auto at = [&](const char* time) { return climatology.at(parse_time(time)); };
  EXPECT_TRUE(
      near(at("2014-03-05T03"), 0.75 * at("2014-03-05T00") + 0.25 * at("2014-03-05T12"), 1e-12));
  // after the last hour of the day towards the next day's first
  EXPECT_TRUE(
      near(at("2013-12-31T18"), 0.5 * at("2013-12-31T12") + 0.5 * at("2014-01-01T00"), 1e-12));
}

TEST(Climatology, FitsTheGivenTimesOnly) {
  Fields fields = known_cycle();
  const std::vector<int64_t> training(fields.times.begin(), fields.times.begin() + 600);
  const Climatology before = Climatology::fit(fields, training);
  fields.data.narrow(0, 600, 130).fill_(1e6);
  const Climatology after = Climatology::fit(fields, training);
  EXPECT_TRUE(identical(before.at(fields.times), after.at(fields.times)));
}

TEST(Climatology, SavesAndLoads) {
  const test::TemporaryFolder folder;
  const Fields fields = known_cycle();
  const Climatology climatology = Climatology::fit(fields, fields.times);
  climatology.save(folder / "c.safetensors");
  const Climatology back = Climatology::load(folder / "c.safetensors");
  EXPECT_TRUE(identical(back.at(fields.times), climatology.at(fields.times)));
  EXPECT_TRUE(back.grid() == climatology.grid());
  EXPECT_EQ(back.variables(), climatology.variables());
  write_text(folder / "bad.safetensors", "xxxxxxxxxxxxxxxx");
  EXPECT_THROW(Climatology::load(folder / "bad.safetensors"), Error);
}

TEST(Climatology, RefusesWhatItCannotFit) {
  Fields fields = known_cycle();
  EXPECT_THROW(Climatology::fit(fields, {fields.times.begin(), fields.times.begin() + 8}), Error);
  EXPECT_THROW(Climatology::fit(fields, {}), Error);
  EXPECT_THROW(Climatology::fit(fields, fields.times, 0), Error);
  const Climatology climatology = Climatology::fit(fields, fields.times);
  fields.data[3][0][1] = std::nanf("");
  EXPECT_THROW(Climatology::fit(fields, fields.times), Error);
  fields.variables[0].name = "q";
  EXPECT_THROW(climatology.anomaly(fields), Error);
}

// The numbers of shared/baselines/real_data_baselines.py.
TEST(Climatology, MatchesTheReferenceOnRealData) {
  HALCYON_NEEDS_SHARED();
  const Fields air =
      read_fields(test::shared_dir() / "data/ncep_air_namerica_6h_2013_2014/air_temperature.nc");
  const DataSplit split({{parse_time("2013-01-01"), parse_time("2014-01-01")}}, {},
                        {{parse_time("2014-01-01"), parse_time("2015-01-01")}});
  const Climatology climatology = Climatology::fit(air, split.times(Purpose::training, air.times));
  EXPECT_EQ(climatology.hours(), (std::vector<int64_t>{0, 21600, 43200, 64800}));
  const int64_t point = 10 * 53 + 20;
  const auto value = [&](std::size_t t) {
    return climatology.at(air.times[t])[0][point].item<double>();
  };
  EXPECT_NEAR(value(0), 267.7332213923772, 1e-4);
  EXPECT_NEAR(value(1234), 272.27278946700005, 1e-4);
  EXPECT_NEAR(value(2919), 265.70855698337346, 1e-4);
  EXPECT_NEAR(climatology.at(air.times[1234] + 3 * 3600)[0][point].item<double>(), 272.957414262283,
              1e-4);
  const Fields test = split.select(air, Purpose::evaluation);
  const at::Tensor squares = climatology.anomaly(test).square().mean(0)[0];
  EXPECT_NEAR(std::sqrt(squares.dot(area_weights(test.grid)).item<double>()), 3.686086, 1e-4);
}

}  // namespace
}  // namespace halcyon::state
