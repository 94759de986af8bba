// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/cf_time.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"

namespace halcyon::state {
namespace {

std::string first(double value, std::string_view units, std::string_view calendar = "standard") {
  return format_time(decode_times(at::tensor({value}, at::kDouble), units, calendar, "f")[0]);
}

TEST(CfTime, KnownUnitsAndReferences) {
  EXPECT_EQ(first(1867128, "hours since 1800-01-01"), "2013-01-01T00:00:00Z");
  EXPECT_EQ(first(0.25, "days since 2000-02-28 18:00:0.0"), "2000-02-29T00:00:00Z");
  EXPECT_EQ(first(90, "seconds since 1970-1-1T00:00:00Z"), "1970-01-01T00:01:30Z");
  EXPECT_EQ(first(-30, "Minutes since 1970-01-01 00:00 +02:00"), "1969-12-31T21:30:00Z");
  EXPECT_EQ(first(0, "hours since 1970-01-01 00:00:00 UTC", ""), "1970-01-01T00:00:00Z");
  EXPECT_EQ(first(0, "weeks since 2024-02-29 -0530", "proleptic_gregorian"),
            "2024-02-29T05:30:00Z");
}

TEST(CfTime, StandardCalendarIsJulianBeforeTheReform) {
  // cftime.num2date(0, 'days since 1582-10-04', 'standard') + 1 day = 1582-10-15
  EXPECT_EQ(first(1, "days since 1582-10-04"), "1582-10-15T00:00:00Z");
  EXPECT_EQ(first(1, "days since 1582-10-04", "proleptic_gregorian"), "1582-10-05T00:00:00Z");
  // as cftime.num2date has it; NCEP's old files count from there
  EXPECT_EQ(first(17532024, "hours since 1-1-1 00:00:0.0"), "2001-01-15T00:00:00Z");
  EXPECT_EQ(first(17532024, "hours since 1-1-1 00:00:0.0", "proleptic_gregorian"),
            "2001-01-17T00:00:00Z");
}

TEST(CfTime, RoundsToTheSecond) {
  // a third of a day in float32
  const at::Tensor values = at::tensor({1.0f / 3}, at::kFloat);
  EXPECT_EQ(decode_times(values, "days since 1970-01-01", "", "f")[0], 28800);
}

TEST(CfTime, RefusesWhatItCannotTell) {
  const auto refused = [](std::string_view units, std::string_view calendar, const char* part,
                          double value = 0) {
    try {
      first(value, units, calendar);
      FAIL() << "no error for " << units;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::input);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused("hours since 2000-01-01", "noleap", "calendar, got noleap");
  refused("months since 2000-01-01", "", "got months");
  refused("hours since 2000-13-01", "", "date that exists");
  refused("hours since 1900-02-29", "", "date that exists");
  refused("hours since yesterday", "", "time units such as");
  refused("", "", "time units such as");
  refused(std::string(100000, ' '), "", "time units such as");
  refused("hours since 0000-01-01", "proleptic_gregorian", "year from 1");
  refused("hours since 2000-01-01", "", "between the years", std::nan(""));
  refused("hours since 2000-01-01", "", "between the years", 1e30);
}

}  // namespace
}  // namespace halcyon::state
