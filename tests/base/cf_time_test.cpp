// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/cf_time.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

struct Case {
  const char* units;
  double seconds;     // of a unit
  int64_t standard;   // the reference in the calendar standard, s since 1970
  int64_t proleptic;  // and in proleptic_gregorian; 0: the same
  int64_t micros = 0;
};

// What cftime 1.6.6 reads: num2date(0) as seconds on the line of days, and its units.
const Case kCases[] = {
    {"hours since 2012-10-01 12:00:00", 3600, 1349092800, 0},
    {"seconds since 1970-1-1 00:00:00.0", 1, 0, 0},
    {"hours since 1-1-1 00:00:0.0", 3600, -62135769600, -62135596800},
    {"days since 1-1-1", 86400, -62135769600, -62135596800},
    {"days since 0001-01-01 00:00:00", 86400, -62135769600, -62135596800},
    {"Minutes since 2000-1-2T3:4:5Z", 60, 946782245, 0},
    {"SECONDS Since 1970-01-01T00:00:00Z", 1, 0, 0},
    {"  seconds   since\t1970-01-01 ", 1, 0, 0},
    {"secs since 1970-01-01", 1, 0, 0},
    {"sec since 1970-01-01", 1, 0, 0},
    {"s since 1970-01-01", 1, 0, 0},
    {"hr since 1970-01-01 06:30", 3600, 23400, 0},
    {"hrs since 1970-01-01", 3600, 0, 0},
    {"h since 1970-01-01", 3600, 0, 0},
    {"min since 1970-01-01", 60, 0, 0},
    {"mins since 1970-01-01", 60, 0, 0},
    {"d since 1970-01-01", 86400, 0, 0},
    {"msec since 1970-01-01", 1e-3, 0, 0},
    {"msecs since 1970-01-01", 1e-3, 0, 0},
    {"ms since 1970-01-01", 1e-3, 0, 0},
    {"millisecs since 1970-01-01", 1e-3, 0, 0},
    {"microsec since 1970-01-01", 1e-6, 0, 0},
    {"microsecs since 1970-01-01", 1e-6, 0, 0},
    {"hours since 1900-01-01T00:00Z", 3600, -2208988800, 0},
    {"hours since 1900-01-01T00:00:00 +02:00", 3600, -2208996000, 0},
    {"hours since 1900-01-01 00:00:00+02:00", 3600, -2208996000, 0},
    {"hours since 1900-01-01 00:00:00 -0530", 3600, -2208969000, 0},
    {"hours since 1900-01-01 00:00 +02", 3600, -2208996000, 0},
    {"hours since 1900-01-01 00:00:00 UTC", 3600, -2208988800, 0},
    {"seconds since 1970-01-01 00:00:00.0 0:00", 1, 0, 0},
    {"seconds since 1970-01-01 00:00:00.75", 1, 0, 0, 750000},
    {"hours since 2000-01-01_06:00:00", 3600, 946706400, 0},
    {"days since 1582-10-04", 86400, -12219379200, -12220243200},
    {"days since 1582-10-15", 86400, -12219292800, 0},
    {"days since 1500-03-01 06:00", 86400, -14825786400, -14826650400},
    {"days since 2000-02-29", 86400, 951782400, 0},
    {"hours since 1900-1-1", 3600, -2208988800, 0},
    {"days since 70-1-1", 86400, -59958316800, -59958144000},
    // beyond cftime, as UDUNITS reads them
    {"nanoseconds since 1970-01-01", 1e-9, 0, 0},
    {"days since 19700102", 86400, 86400, 0},
    {"seconds since 1992-10-8 15:15:42.5 -6:00", 1, 718578942, 0, 500000},
    {"hours since 1970-01-01 06", 3600, 21600, 0},
};

TEST(CfTime, ParsesWhatCftimeReads) {
  for (const auto& c : kCases) {
    for (const bool julian : {true, false}) {
      const auto units = parse_cf_units(c.units, julian);
      EXPECT_EQ(units.seconds, c.seconds) << c.units;
      EXPECT_EQ(units.reference, julian || c.proleptic == 0 ? c.standard : c.proleptic) << c.units;
      EXPECT_EQ(units.microseconds, c.micros) << c.units;
    }
  }
  // a leap day of the Julian calendar alone
  EXPECT_EQ(parse_cf_units("days since 1500-02-29", true).reference, -14825894400);
  EXPECT_THROW(parse_cf_units("days since 1500-02-29", false), Error);
}

TEST(CfTime, NamesThePartThatIsNotUnderstood) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "<unit> since <date>"},
      {"hours", "<unit> since <date>"},
      {" since ", "<unit> since <date>"},
      {"hours from 2000-01-01", "got \"hours from 2000-01-01\""},
      {"day as %Y%m%d.%f", "<unit> since <date>"},
      {"months since 2000-01-01", "got \"months\", which have no fixed length"},
      {"common_years since 2000-01-01", "got \"common_years\", which have no fixed length"},
      {"fortnights since 2000-01-01", "got \"fortnights\""},
      {"hours since yesterday", "got \"yesterday\""},
      {"hours since", "a year from 1 to 9999"},
      {"days since -4713-01-01", "a year from 1 to 9999, got \"-4713-01-01\""},
      {"days since 0-1-1", "a year from 1 to 9999"},
      {"days since 12000-01-01", "a year from 1 to 9999"},
      {"days since 2000", "year-month-day"},
      {"days since 2000-01", "year-month-day"},
      {"days since 2000-13-01", "a month from 1 to 12"},
      {"days since 2001-02-29", "a day from 1 to 28"},
      {"days since 1582-10-10", "1582-10-15 follows 1582-10-04"},
      {"days since 2000-01-01 24:00", "an hour from 0 to 23"},
      {"days since 2000-01-01 12:60", "a minute from 0 to 59"},
      {"days since 2000-01-01 12:00:60", "a second from 0 to 59"},
      {"days since 2000-01-01 12:00 EST", "got \"EST\""},
      {"days since 2000-01-01 12:00 +2 hours", "got \"hours\""},
      {"days since 2000-01-01 12:00 5:00", "a zone with its sign"}};
  for (const auto& [units, part] : cases) {
    try {
      parse_cf_units(units, true);
      ADD_FAILURE() << units;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  }
  // astronomical years have a year 0
  EXPECT_EQ(parse_cf_units("days since 0000-01-01", false).reference, -62167219200);
}

TEST(CfTime, TellsTimesFromOtherUnits) {
  for (const char* units : {"days since 1900-01-01", "Hours SINCE 1900-1-1", "s\tsince nothing"})
    EXPECT_TRUE(is_cf_time(units)) << units;
  for (const char* units : {"", "days", "days as", "K since", "sincere days"})
    EXPECT_EQ(is_cf_time(units), std::string_view(units) == "K since") << units;
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
  // attributes of prescribed values are of any case (CF 2.6)
  for (const char* calendar :
       {"Standard", "Gregorian", "GREGORIAN", "Proleptic_Gregorian", "standard ", ""})
    EXPECT_EQ(write("Hours since 2012-10-01 12:00", calendar)[1].item<int64_t>(), start + 5400)
        << calendar;
  EXPECT_EQ(write("seconds since 2012-10-01 12:00:00.75", "standard")[1].item<int64_t>(),
            start + 2);  // 2.25 s
  for (const char* calendar : {"none", "360_day", "365_day", "all_leap", "julian", "tai", "utc"}) {
    try {
      write("hours since 2012-10-01", calendar);
      ADD_FAILURE() << calendar;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::input);
      EXPECT_NE(std::string(e.what()).find(std::string("got ") + calendar), std::string::npos);
    }
  }
  EXPECT_THROW(write(nullptr, "standard"), Error);
  EXPECT_THROW(write("hours since 2012-10-01", "noleap"), Error);
  EXPECT_THROW(write("fortnights since 2012-10-01", "standard"), Error);
}

}  // namespace
}  // namespace halcyon
