// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/csv.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <string_view>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

template <class F>
std::string message_of(F&& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::input);
    return error.what();
  }
  return "no error";
}

bool says(const std::string& message, std::string_view text) {
  if (message.find(text) != std::string::npos) return true;
  ADD_FAILURE() << message;
  return false;
}

TEST(Csv, ReadsQuotesAndLineEnds) {
  const auto csv = parse_csv(
      "\xEF\xBB\xBF"
      "a,\"b, c\"\r\n\"1 \"\"x\"\"\ny\",2\n3,",
      "t.csv");
  EXPECT_EQ(csv.header, (std::vector<std::string>{"a", "b, c"}));
  EXPECT_EQ(csv.rows[0][0], "1 \"x\"\ny");
  EXPECT_EQ(csv.line[1], 4);
  EXPECT_EQ(csv.number(0, 1), 2);
  EXPECT_TRUE(std::isnan(csv.number(1, 1)));
  EXPECT_TRUE(
      says(message_of([&] { csv.number(0, 0); }), "t.csv:2: expected a number in column a"));
  EXPECT_TRUE(says(message_of([&] { csv.column("z"); }), "t.csv: no column z; it has a, b, c"));
  EXPECT_TRUE(says(message_of([] { parse_csv("a,b\n1", "t.csv"); }), "t.csv:2: expected 2 fields"));
  EXPECT_TRUE(says(message_of([] { parse_csv("a\n\"1\n2", "t.csv"); }), "t.csv:2: a quote"));
  EXPECT_TRUE(says(message_of([] { parse_csv("\n\n", "t.csv"); }), "header line"));
  EXPECT_TRUE(says(message_of([] { parse_csv(std::string_view("a\n\0", 3), "t.csv"); }), "NUL"));
}

TEST(Csv, ReadsFilesAndQuotesFields) {
  const test::TemporaryFolder folder;
  write_text(folder / "a.csv", "name,value\r\n\"x, \"\"y\"\"\",1.5e3\r\n\nz, NaN \n");
  const Csv table = read_csv(folder / "a.csv");
  EXPECT_EQ(table.rows[0][0], "x, \"y\"");
  EXPECT_EQ(table.number(0, 1), 1500);
  EXPECT_TRUE(std::isnan(table.number(1, 1)));
  EXPECT_EQ(table.where(1), (folder / "a.csv").string() + ":4");
  EXPECT_EQ(csv_field(table.rows[0][0]), "\"x, \"\"y\"\"\"");
  EXPECT_EQ(csv_field("plain"), "plain");
}

// Each is what some program writes; the content is the same.
TEST(Csv, ReadsWhatOtherProgramsWrite) {
  const std::pair<const char*, std::string> files[] = {
      {"Excel", "\xEF\xBB\xBFtime,a,b\r\n1,2.5,\r\n3,4,5\r\n"},
      {"an old Macintosh", "time,a,b\r1,2.5,\r3,4,5\r"},
      {"Excel with cells that once were used", "time,a,b,,\n1,2.5,,,\n3,4,5,,\n,,,,\n,,,,\n"},
      {"rows longer than the header", "time,a,b\n1,2.5,,\n3,4,5,\n"},
      {"R with quotes", "\"time\",\"a\",\"b\"\n1,2.5,NA\n3,4,5\n"},
      {"blanks", " time , a,\tb\n 1 , 2.5 , \n\n  \n3,4,+5\n"},
      {"an empty first column", ",time,a,b\n,1,2.5,\n,3,4,5\n"}};
  for (const auto& [program, text] : files) {
    const auto csv = parse_csv(text, "t.csv");
    EXPECT_EQ(csv.header, (std::vector<std::string>{"time", "a", "b"})) << program;
    ASSERT_EQ(csv.rows.size(), 2u) << program;
    EXPECT_EQ(csv.number(0, 0), 1) << program;
    EXPECT_EQ(csv.number(0, 1), 2.5) << program;
    EXPECT_TRUE(csv.missing(0, 2)) << program;
    EXPECT_EQ(csv.number(1, 2), 5) << program;
  }
}

TEST(Csv, NamesOfRowsStayAsAColumnWithoutName) {
  const auto csv = parse_csv("\"\",\"t\"\n\"1\",5\n\"2\",6\n", "t.csv");
  EXPECT_EQ(csv.header, (std::vector<std::string>{"", "t"}));
  EXPECT_EQ(csv.number(1, csv.column("t")), 6);
  EXPECT_EQ(csv_header("\xEF\xBB\xBF\r\n\"\", \"x,y\"\r"), (std::vector<std::string>{"", "x,y"}));
  EXPECT_TRUE(csv_header("\"open").empty());
}

TEST(Csv, RefusesWhatMightBeReadWrongly) {
  const std::pair<std::string, const char*> cases[] = {
      {"a;b\n1,5;2\n", "t.csv:1: expected columns separated by commas"},
      {"a\tb\n1\t2\n", "got tabs"},
      {"a,b\n\"r1\",1,2\n", "t.csv:2: expected 2 fields as in the header, got 3 (one is the row"},
      {"a,b, a\n1,2,3\n", "t.csv:1: the columns 1 and 3 have the same name a"},
      {"a,,c\n1,,3\n1,2,3\n", "t.csv:3: expected nothing in column 2, which has no name"},
      {"a\nQu\xE9\n", "t.csv:2:3: expected UTF-8 text, got the byte 0xE9"},
      {std::string("a\0,\0", 5), "UTF-16LE"},
      {std::string("a\n\"x\0\"\n", 7), "t.csv:2:3: expected UTF-8 text, got a NUL byte"}};
  for (const auto& [text, reason] : cases)
    EXPECT_TRUE(says(message_of([&] { parse_csv(text, "t.csv"); }), reason)) << text;
}

TEST(Csv, ReadsNumbersWholeOrNotAtAll) {
  const auto csv = parse_csv(
      "x\n\"1,234\"\n12.5 K\n+-3\n0x1A\n1e999\n1d3\n1 000\n#VALUE!\n+3\n 1e3 \n-.5\nM\n-\n<NA>\n",
      "t.csv");
  std::size_t row = 0;
  for (; row < 8; ++row)
    EXPECT_TRUE(says(message_of([&] { csv.number(row, 0); }), "expected a number in column x"));
  EXPECT_EQ(csv.number(row++, 0), 3);
  EXPECT_EQ(csv.number(row++, 0), 1000);
  EXPECT_EQ(csv.number(row++, 0), -0.5);
  for (; row < csv.rows.size(); ++row) EXPECT_TRUE(csv.missing(row, 0)) << csv.rows[row][0];
  const auto times = parse_csv("t\n 2014-11-10 06:00:00 \n11/10/2014 00:00\n", "t.csv");
  EXPECT_EQ(times.time(0, 0), 1415599200);
  EXPECT_TRUE(says(message_of([&] { times.time(1, 0); }), "t.csv:3: "));
}

}  // namespace
}  // namespace halcyon
