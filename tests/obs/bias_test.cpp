// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/bias.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/split.h"
#include "tests/obs/support.h"
#include "tests/support/compare.h"

namespace halcyon::obs {
namespace {

using test::identical;
using test::message_of;
using test::says;
using test::table_of;

TEST(Split, NumbersDaysFromOne) {
  const auto parts = [](const char* time) { return day_parts(parse_time(time) * 1'000'000'000); };
  EXPECT_EQ(parts("2014-01-01T23:59:59").day_of_year, 1);
  EXPECT_EQ(parts("2012-12-31").day_of_year, 366);
  EXPECT_EQ(parts("1969-12-31T18:00:00").day_of_year, 365);
  EXPECT_EQ(parts("1969-12-31T18:00:00").hour, 18);
  EXPECT_EQ(parts("1969-12-31T18:00:00").month, 12);
  const auto table = table_of({{"2014-01-01", "a", 1}, {"2014-01-02T12:00:00", "a", 1}});
  EXPECT_TRUE(identical(on_even_days(table), at::tensor({0, 1}).to(at::kBool)));
  EXPECT_TRUE(identical(on_odd_days(table), at::tensor({1, 0}).to(at::kBool)));
}

// Day 100 of 2014 is 10 April.
Table even_days() {
  return table_of({{"2014-04-10T00:00:00", "a", 280},
                   {"2014-04-12T00:00:00", "a", 282},
                   {"2014-04-12T06:00:00", "a", 285},
                   {"2014-04-12T00:00:00", "b", 270},
                   {"2014-04-14T00:00:00", "b", 270}});
}

TEST(StationBias, IsTheMeanByStationMonthAndHour) {
  const auto bias = StationBias::fit(even_days(), at::tensor({1.f, 3.f, 5.f, -2.f, NAN}));
  EXPECT_DOUBLE_EQ(bias.bias("a", 0, 4, 0), 2);
  EXPECT_DOUBLE_EQ(bias.bias("a", 0, 4, 6), 5);
  EXPECT_DOUBLE_EQ(bias.bias("b", 0, 4, 0), -2);
  EXPECT_TRUE(std::isnan(bias.bias("a", 0, 5, 0)));
  EXPECT_TRUE(std::isnan(bias.bias("c", 0, 4, 0)));
  // residuals of a: -1, 1, 0
  EXPECT_DOUBLE_EQ(bias.variance("a", 0), 2.0 / 3);
  EXPECT_DOUBLE_EQ(bias.variance("b", 0), 0);
  EXPECT_EQ(bias.fitted_rows(), 4);
  EXPECT_EQ(bias.fitted_span().second, parse_time("2014-04-12T06:00:00") * 1'000'000'000);
}

// Also where the file writes the place another way.
TEST(StationBias, CountsARepeatedRowOnce) {
  auto twice = even_days();
  auto again = table_of({{"2014-04-12T00:00:00", "a", 282, 40.001, 260}});
  twice.append(again);
  const auto once = StationBias::fit(even_days(), at::tensor({1.f, 3.f, 5.f, -2.f, NAN}));
  const auto bias = StationBias::fit(twice, at::tensor({1.f, 3.f, 5.f, -2.f, NAN, 3.f}));
  EXPECT_EQ(bias.to_json(), once.to_json());
}

TEST(StationBias, RefusesOddDays) {
  const auto table = table_of({{"2014-04-10", "a", 280}, {"2014-04-11", "a", 280}});
  const auto message = message_of([&] { StationBias::fit(table, at::zeros({2})); });
  EXPECT_TRUE(says(message, "row 1 is of 2014-04-11T00:00:00Z (day 101 of its year)")) << message;
  EXPECT_TRUE(says(message_of([&] { StationBias::fit(table, at::zeros({3})); }), "each of 2 rows"));
}

TEST(StationBias, AppliesAndCodesWhatItDoesNotKnow) {
  const auto bias = StationBias::fit(even_days(), at::tensor({1.f, 3.f, 5.f, -2.f, NAN}));
  const auto table = table_of({{"2014-04-11T00:00:00", "a", 280},
                               {"2014-04-11T12:00:00", "a", 280},
                               {"2014-04-11T00:00:00", "c", 280},
                               {"2014-04-11T06:00:00", "a", 280}});
  const auto applied = bias.apply(table);
  EXPECT_TRUE(identical(applied.table["value"], at::tensor({278.f, 275.f})));
  EXPECT_TRUE(identical(applied.table["bias"], at::tensor({2.f, 5.f})));
  EXPECT_FLOAT_EQ(applied.table["error_sd"][0].item<float>(), std::sqrt(2.0 / 3));
  const int32_t unknown = static_cast<int32_t>(Reason::no_bias_statistics);
  EXPECT_TRUE(identical(applied.codes, at::tensor({0, unknown, unknown, 0}, at::kInt)));
}

TEST(StationBias, SurvivesJson) {
  const auto bias = StationBias::fit(even_days(), at::tensor({1.f, 3.f, 5.1f, -2.f, NAN}));
  const auto json = bias.to_json();
  const auto back = StationBias::from_json(nlohmann::json::parse(json.dump()));
  EXPECT_EQ(back.to_json(), json);
  EXPECT_EQ(back.bias("a", 0, 4, 6), bias.bias("a", 0, 4, 6));
  auto wrong = json;
  wrong["stations"][0]["bias_by_month_and_hour"].erase(0);
  EXPECT_TRUE(says(message_of([&] { StationBias::from_json(wrong); }), "expected 288 biases"));
  wrong = json;
  wrong["stations"][0]["variable"] = "x";
  EXPECT_TRUE(says(message_of([&] { StationBias::from_json(wrong); }), "expected one of t2m"));
  wrong = json;
  wrong["stations"][0]["error_variance"] = "x";
  EXPECT_THROW(StationBias::from_json(wrong), Error);
  EXPECT_THROW(StationBias::from_json(nlohmann::json::array()), Error);
}

}  // namespace
}  // namespace halcyon::obs
