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

}  // namespace
}  // namespace halcyon
