// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/time.h"

#include <gtest/gtest.h>

#include <ctime>

#include "halcyon/base/error.h"

namespace halcyon {
namespace {

TEST(Time, CivilDatesAgreeWithTheCLibraryOverSixCenturies) {
  for (int64_t days = -150000; days < 80000; days += 7) {
    const std::time_t seconds = days * 86400;
    std::tm tm{};
    gmtime_r(&seconds, &tm);
    const CivilDate date = civil_from_days(days);
    ASSERT_EQ(date, (CivilDate{tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday})) << days;
    ASSERT_EQ(days_from_civil(date), days);
    ASSERT_EQ(day_of_year(seconds), tm.tm_yday);
  }
}

TEST(Time, ParsesIsoAndCompactForms) {
  const int64_t noon = 1709208000;  // 2024-02-29T12:00:00Z
  for (const char* text :
       {"2024-02-29T12:00:00Z", "2024-02-29T12", "2024-02-29 12:00", "2024-02-29T12:00:00.000Z",
        "2024-02-29T14:00+02:00", "2024-02-29T07:30:00-0430", "2024022912", "202402291200",
        "20240229120000", "2024-02-29t12:00:00z"}) {
    EXPECT_EQ(parse_time(text), noon) << text;
  }
  EXPECT_EQ(parse_time("2024-02-29"), noon - 43200);
  EXPECT_EQ(parse_time("20240229"), noon - 43200);
  EXPECT_EQ(parse_time("1969-12-31T23:59:59"), -1);
  EXPECT_EQ(parse_time("0001-01-01"), -62135596800);
}

TEST(Time, RefusesWhatIsNoTime) {
  for (const char* text :
       {"", "2023-02-29", "2024-13-01", "2024-00-01", "2024-1-1", "2024-02-29T24:00", "20240230",
        "2024-02-29T12:60", "2024-02-29T12:00:00.5Z", "2024-02-29T12:00:00Zulu", "2024-02-29T",
        "2024", "202402291", "0000-01-01", "2024-02-29T12:00+", "12/02/2024",
        "2024-02-29T12:00:00."}) {
    EXPECT_THROW(parse_time(text), Error) << text;
  }
}

TEST(Time, FormatsAndReadsBack) {
  for (const int64_t t : {int64_t{0}, int64_t{-1}, int64_t{1709208061}, int64_t{-62135596800}}) {
    EXPECT_EQ(parse_time(format_time(t)), t);
  }
  EXPECT_EQ(format_time(1709208061), "2024-02-29T12:01:01Z");
  EXPECT_EQ(format_time(-1), "1969-12-31T23:59:59Z");
}

TEST(Time, Durations) {
  EXPECT_EQ(parse_duration("PT6H"), 21600);
  EXPECT_EQ(parse_duration("P1DT12H30M5S"), 86400 + 43200 + 1800 + 5);
  EXPECT_EQ(parse_duration("6h"), 21600);
  EXPECT_EQ(parse_duration("3h30min"), 12600);
  EXPECT_EQ(parse_duration("-90s"), -90);
  EXPECT_EQ(parse_duration("P2W"), 14 * 86400);
  for (const char* text : {"", "P", "PT", "6", "P1M", "P1H", "h6", "PT6H!", "P1Y", "6 h", "-",
                           "PT6HT1M", "9999999999999s", "1.5h"}) {
    EXPECT_THROW(parse_duration(text), Error) << text;
  }
  for (const int64_t s : {0, 1, 60, 3600, 86400, 90061, -1800}) {
    EXPECT_EQ(parse_duration(format_duration(s)), s) << format_duration(s);
  }
  EXPECT_EQ(format_duration(90000), "P1DT1H");
}

TEST(Time, CalendarInputsOfTheModel) {
  const int64_t t = parse_time("2024-12-31T18:00");
  EXPECT_EQ(day_of_year(t), 365.75);
  EXPECT_EQ(second_of_day(t), 64800);
  EXPECT_EQ(second_of_day(-1), 86399);
  EXPECT_EQ(day_of_year(parse_time("2023-01-01")), 0);
}

TEST(Time, RangesIncludeTheEndWhereTheStepsMeetIt) {
  const TimeRange exact = time_range(0, 43200, 21600);
  EXPECT_EQ(exact.times(), (std::vector<int64_t>{0, 21600, 43200}));
  EXPECT_EQ(time_range(0, 43199, 21600).size(), 2);
  EXPECT_EQ(time_range(5, 5, 1).size(), 1);
  EXPECT_THROW(time_range(0, 1, 0), Error);
  EXPECT_THROW(time_range(1, 0, 1), Error);
}

}  // namespace
}  // namespace halcyon
