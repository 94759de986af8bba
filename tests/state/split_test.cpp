// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/split.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/state/write_fields.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::state {
namespace {

Interval interval(const char* start, const char* end) {
  return {parse_time(start), parse_time(end)};
}

DataSplit usual() {
  return {{interval("2013-01-01", "2013-12-01")},
          {interval("2013-12-01", "2014-01-01")},
          {interval("2014-01-01", "2015-01-01")}};
}

std::string message_of(auto&& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(DataSplit, RefusesForbiddenTimesByName) {
  const DataSplit split = usual();
  EXPECT_TRUE(split.allows(Purpose::training, parse_time("2013-11-30T18")));
  EXPECT_FALSE(split.allows(Purpose::training, parse_time("2013-12-01")));
  EXPECT_NO_THROW(split.require(Purpose::evaluation, {parse_time("2014-01-01")}));
  const std::string message = message_of([&] {
    split.require(Purpose::training, {parse_time("2013-05-01"), parse_time("2014-02-03T06")});
  });
  EXPECT_NE(message.find("got 2014-02-03T06:00:00Z, which is kept for evaluation"),
            std::string::npos)
      << message;
  EXPECT_NE(message_of([&] {
              split.require(Purpose::evaluation, {parse_time("2016-01-01")});
            }).find("2016-01-01T00:00:00Z"),
            std::string::npos);
}

TEST(DataSplit, HandsOutOnlyItsOwnFields) {
  const test::TemporaryFolder folder;
  const std::vector<int64_t> times = {parse_time("2013-11-30"), parse_time("2013-12-15"),
                                      parse_time("2014-01-01"), parse_time("2014-06-01")};
  const Fields fields{{{"t", "", "", "K"}},
                      LatLonGrid({0, 1}, {0, 1}),
                      times,
                      at::arange(16, at::kFloat).view({4, 1, 4})};
  write_fields(folder / "f.nc", fields);
  const DataSplit split = usual();
  const Fields training = split.read(folder / "f.nc", Purpose::training);
  EXPECT_EQ(training.times, (std::vector<int64_t>{times[0]}));
  const Fields evaluation = split.select(fields, Purpose::evaluation);
  EXPECT_TRUE(test::identical(evaluation.data, fields.data.narrow(0, 2, 2)));
  EXPECT_THROW(split.select(fields, Purpose::training, {times[2]}), Error);
  EXPECT_THROW(
      split.read(folder / "f.nc", Purpose::training, {.variables = {}, .times = {{times[3]}}}),
      Error);
  const DataSplit none({interval("1990-01-01", "1991-01-01")}, {}, {});
  EXPECT_THROW(none.select(fields, Purpose::training), Error);
}

TEST(DataSplit, RefusesOverlaps) {
  const auto make = [](Interval a, Interval b) { DataSplit({a}, {}, {b}); };
  EXPECT_NO_THROW(make(interval("2013-01-01", "2014-01-01"), interval("2014-01-01", "2015-01-01")));
  EXPECT_NE(message_of([&] {
              make(interval("2013-01-01", "2014-01-02"), interval("2014-01-01", "2015-01-01"));
            }).find("training and evaluation apart, got both at 2014-01-01"),
            std::string::npos);
  EXPECT_THROW(make(interval("2014-01-01", "2013-01-01"), interval("2015-01-01", "2016-01-01")),
               Error);
}

}  // namespace
}  // namespace halcyon::state
