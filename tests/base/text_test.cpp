// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace halcyon {
namespace {

using namespace std::string_view_literals;

TEST(Text, KnowsUtf8) {
  for (const auto good : {"", "plain", "Qu\u00e9bec", "\u6771\u4eac", "\U0001F327"})
    EXPECT_TRUE(is_utf8(good)) << good;
  // Latin-1; cut; overlong; a surrogate; past the last character; a stray continuation
  for (const auto bad : {"Qu\xE9", "\xC3", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80",
                         "\xF4\x90\x80\x80", "\x80", "\xFF"})
    EXPECT_FALSE(is_utf8(bad)) << printable(bad);
}

TEST(Text, FaultsNameTheirPlaceAndCure) {
  EXPECT_FALSE(text_fault("a\nb"));
  EXPECT_FALSE(text_fault("\xEF\xBB\xBFQu\u00e9bec"));
  const auto latin = text_fault("first\r\n\u00e9\u00e9Qu\xE9\n");
  ASSERT_TRUE(latin);
  EXPECT_EQ(latin->line, 2);
  EXPECT_EQ(latin->column, 5);
  EXPECT_NE(latin->what.find("0xE9"), std::string::npos) << latin->what;
  EXPECT_NE(latin->what.find("iconv -f WINDOWS-1252 -t UTF-8"), std::string::npos) << latin->what;
  const auto zero = text_fault("a\rb\0c"sv);
  ASSERT_TRUE(zero);
  EXPECT_EQ(zero->line, 2);
  EXPECT_NE(zero->what.find("NUL"), std::string::npos) << zero->what;
}

TEST(Text, WideTextIsRefusedByName) {
  const std::pair<std::string_view, const char*> cases[] = {
      {"\xFF\xFE"
       "a\0"sv,
       "got UTF-16:"},
      {"\xFE\xFF\0a"sv, "got UTF-16:"},
      {"a\0b\0"sv, "got UTF-16LE:"},
      {"\0a\0b"sv, "got UTF-16BE:"},
      {"\xFF\xFE\0\0a\0\0\0"sv, "got UTF-32:"},
      {"a\0\0\0b\0\0\0"sv, "got UTF-32LE:"}};
  for (const auto& [bytes, name] : cases) {
    const auto fault = text_fault(bytes);
    ASSERT_TRUE(fault) << name;
    EXPECT_NE(fault->what.find(name), std::string::npos) << fault->what;
    EXPECT_TRUE(wide_text_fault(bytes)) << name;
  }
  EXPECT_FALSE(wide_text_fault("GRIB\0\0\0\1"sv));
  EXPECT_FALSE(wide_text_fault("CDF\1\0\0\0\0"sv));
}

TEST(Text, BecomesUtf8) {
  EXPECT_EQ(from_windows_1252("Qu\xE9"
                              "bec \x80 \x96"),
            "Qu\u00e9bec \u20ac \u2013");
  EXPECT_EQ(printable("Qu\xE9"
                      "bec"),
            "Qu\\xE9bec");
  EXPECT_EQ(printable("Qu\u00e9bec"), "Qu\u00e9bec");
  EXPECT_EQ(printable("cut \xE2\x82"), "cut \\xE2\\x82");
  EXPECT_TRUE(is_utf8(json_text(nlohmann::json{{"name", "Qu\xE9"}})));
  EXPECT_EQ(json_text(nlohmann::json{{"n", 1}}), "{\"n\":1}");
}

}  // namespace
}  // namespace halcyon
