// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/cf_time.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

TEST(CfTime, ParsesUnits) {
  const std::pair<const char*, CfTimeUnits> cases[] = {
      {"hours since 2012-10-01 12:00:00", {3600, parse_time("2012-10-01T12:00:00")}},
      {"seconds since 1970-1-1 00:00:00.0", {1, 0}},
      {"hours since 1-1-1 00:00:0.0", {3600, parse_time("0001-01-01")}},
      {"days since 1950-01-01", {86400, parse_time("1950-01-01")}},
      {"Minutes since 2000-1-2T3:4:5Z", {60, parse_time("2000-01-02T03:04:05")}},
      {"s since 2000-01-01 00:00:00 UTC", {1, parse_time("2000-01-01")}},
      {"s since 2000-01-01 00:00:00 +00:00", {1, parse_time("2000-01-01")}},
      {"nanoseconds since 1970-01-01", {1e-9, 0}}};
  for (const auto& [text, expected] : cases) {
    const auto units = parse_cf_units(text);
    EXPECT_EQ(units.seconds, expected.seconds) << text;
    EXPECT_EQ(units.reference, expected.reference) << text;
  }
  for (const char* wrong : {"", "hours", "months since 2000-01-01", "hours since yesterday",
                            "hours since 2000-01-01 00:00:00.5", " since "})
    EXPECT_THROW(parse_cf_units(wrong), Error) << wrong;
}

// The days are those of cftime.num2date in the calendar "standard".
TEST(CfTime, StandardCalendarIsJulianBeforeTheReform) {
  const auto reference = [](const char* units, bool julian) {
    return format_time(parse_cf_units(units, julian).reference);
  };
  EXPECT_EQ(reference("days since 1582-10-04", true), "1582-10-14T00:00:00Z");
  EXPECT_EQ(reference("days since 1582-10-04", false), "1582-10-04T00:00:00Z");
  EXPECT_EQ(reference("days since 1582-10-15", true), "1582-10-15T00:00:00Z");
  EXPECT_EQ(reference("days since 1500-02-28 06:00:00", true), "1500-03-09T06:00:00Z");
  EXPECT_EQ(reference("days since 1500-03-01", true), "1500-03-11T00:00:00Z");
  // NCEP's reanalysis counts from year 1
  const auto ncep = parse_cf_units("hours since 1-1-1 00:00:0.0", true);
  EXPECT_EQ(format_time(ncep.reference + 17532024 * int64_t{3600}), "2001-01-15T00:00:00Z");
}

TEST(CfTime, ReadsAVariable) {
  const test::TemporaryFolder folder;
  const auto write = [&](const char* units, const char* calendar) {
    write_netcdf(folder / "t.nc", [&](NetcdfWriter& out) {
      out.dimension("time", 4);
      out.variable("time", at::kDouble, {"time"}, {.fill = -1.0});
      if (units) out.attribute("time", "units", units);
      out.attribute("time", "calendar", calendar);
      out.write("time", at::tensor({0., 1.5, -1., 1e300}, at::kDouble));
    });
    return read_cf_time(NetcdfReader(folder / "t.nc"), "time");
  };
  const auto start = parse_time("2012-10-01T12:00:00");
  EXPECT_TRUE(
      test::identical(write("hours since 2012-10-01 12:00:00", "gregorian"),
                      at::tensor({start, start + 5400, kMissingTime, kMissingTime}, at::kLong)));
  EXPECT_THROW(write(nullptr, "standard"), Error);
  EXPECT_THROW(write("hours since 2012-10-01", "noleap"), Error);
  EXPECT_THROW(write("fortnights since 2012-10-01", "standard"), Error);
}

}  // namespace
}  // namespace halcyon
