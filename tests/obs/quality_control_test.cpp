// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/quality_control.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/variables.h"
#include "tests/obs/support.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/paths.h"

namespace halcyon::obs {
namespace {

using test::identical;
using test::message_of;
using test::says;
using test::table_of;

int32_t code(Reason reason) {
  return static_cast<int32_t>(reason);
}

TEST(QualityControl, NamesEveryReason) {
  EXPECT_EQ(qc_reasons()[0], "kept");
  EXPECT_EQ(qc_reasons().size(), static_cast<std::size_t>(code(Reason::not_nearest)) + 1);
  EXPECT_EQ(qc_reasons()[static_cast<std::size_t>(code(Reason::duplicate))], "duplicate");
  EXPECT_EQ(qc_reasons()[17], "no_bias_statistics");
  EXPECT_EQ(qc_reasons().back(), "not_nearest");
}

TEST(QualityControl, KeepsTheRowsOfTheGolden) {
  HALCYON_NEEDS_SHARED();
  const auto golden = test::golden("healda/datapipe");
  const auto columns = golden.under("in.qc.");
  const std::pair<const char*, ChannelRules> cases[] = {
      {"none", {}},
      {"qc", {.qc_filter = true}},
      {"uv_insitu", {.conv_uv_in_situ_only = true}},
      {"gps_l1", {.conv_gps_level1_only = true}},
      {"all", {true, true, true}}};
  for (const auto& [name, rules] : cases) {
    const auto codes = quality_control(columns, rules);
    EXPECT_EQ(codes.scalar_type(), at::kInt);
    EXPECT_TRUE(
        identical((codes == 0).nonzero().squeeze(1), golden.at(std::string("out.qc.kept_") + name)))
        << name;
  }
}

// One conventional row of each kind of fault, and satellite rows that the same faults do not touch.
TEST(QualityControl, GivesTheFirstReason) {
  const auto f = [](std::vector<float> v) { return at::tensor(v); };
  std::map<std::string, at::Tensor> columns = {
      {"Observation", f({280, NAN, 400, 280, 280, 280, 280, 5, 5, 280, 280, INFINITY, 280})},
      {"min_valid", f({150, 150, 150, 150, 150, 150, 150, -100, -100, 150, 150, 150, 150})},
      {"max_valid", f({350, 350, 350, 350, 350, 350, 350, 100, 100, 350, 350, 350, 350})},
      {"is_conv", at::tensor({1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0}).to(at::kBool)},
      {"Pressure", f({500, 500, 500, 199, NAN, 500, 500, 500, 500, 0.4F, NAN, NAN, NAN})},
      {"Height", f({10, 10, 10, 10, 10, -1, 10, 10, 10, 10, NAN, NAN, NAN})},
      {"Analysis_Use_Flag", at::tensor({1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0}).to(at::kChar)},
      {"QC_Flag", at::tensor({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3}, at::kInt)},
      {"Observation_Type", at::tensor({1, 1, 1, 1, 1, 1, 1, 229, 228, 1, 0, 0, 0}, at::kInt)},
      {"local_channel_id", at::tensor({5, 5, 5, 5, 5, 5, 5, 6, 7, 0, 3, 3, 3}, at::kInt)}};
  const auto expected =
      at::tensor({code(Reason::kept), code(Reason::not_finite), code(Reason::outside_valid_range),
                  code(Reason::pressure), code(Reason::pressure), code(Reason::height),
                  code(Reason::provider_flag), code(Reason::kept), code(Reason::report_type),
                  code(Reason::pressure), code(Reason::kept), code(Reason::not_finite),
                  code(Reason::provider_flag)},
                 at::kInt);
  EXPECT_TRUE(identical(quality_control(columns, {true, true, false}), expected));

  auto wrong = columns;
  wrong.erase("Height");
  EXPECT_TRUE(says(message_of([&] { quality_control(wrong, {}); }), "expected a column Height"));
  wrong["Height"] = at::zeros({2});
  EXPECT_TRUE(says(message_of([&] { quality_control(wrong, {}); }), "expected 13 rows"));
  wrong["Height"] = at::zeros({13, 1});
  EXPECT_TRUE(says(message_of([&] { quality_control(wrong, {}); }), "rank 1"));
  EXPECT_TRUE(says(message_of([&] { quality_control({}, ChannelRules{}); }), "Observation"));

  // satellites alone need nothing else
  const std::map<std::string, at::Tensor> satellite = {{"Observation", f({200, 500})},
                                                       {"min_valid", f({0, 0})},
                                                       {"max_valid", f({400, 400})},
                                                       {"is_conv", at::zeros({2}, at::kBool)}};
  EXPECT_TRUE(identical(quality_control(satellite, {}),
                        at::tensor({0, code(Reason::outside_valid_range)}, at::kInt)));
}

TEST(SurfaceControl, GivesAReasonToEveryRejectedRow) {
  auto table = table_of({{"2014-04-01", "good", 280},
                         {"2014-04-01", "good", 281},  // duplicate
                         {"2014-04-01", "elsewhere", 281, 41},
                         {"2014-04-01", "hot", 400},
                         {"2014-04-01", "nan", NAN},
                         {"2014-04-01", "pole", 280, 91},
                         {"2014-04-01", "early", 280, 40, -100, "t2m", 1},
                         {"2014-04-01", "humid", 50, 40, -100, "rh2m"},
                         {"2014-04-01", "bad", 280, 40, -100, "t2m", 3},
                         {"2014-04-01", "suspect", 280, 40, -100, "t2m", 2},
                         {"2014-04-01", "far", 280, 40, 10},
                         {"2014-04-01", "blocked", 280},
                         {"2014-04-01", "when", 280},
                         {"2014-04-01", "high", 280}});
  auto time = table["time_ns"].clone();
  time[6] = parse_time("2014-03-31T21:00:00") * 1000000000;
  time[12] = kMissingTimeNs;
  table.set("time_ns", time, table.units("time_ns"));
  auto height = table["height"].clone();
  height[13] = 2000;
  table.set("height", height, "m");
  SurfaceRules rules;
  rules.variables = {"t2m", "mslp"};
  rules.blocked_stations = {"blocked", "not in the table"};
  rules.begin = parse_time("2014-03-31T21:00:00");
  rules.end = parse_time("2014-04-01T03:00:00");
  rules.region = Region::touching(3, {-130, -70, 20, 60});
  rules.max_height = 1500;
  const auto codes = quality_control(table, rules);
  const auto expected = at::tensor(
      {code(Reason::kept), code(Reason::duplicate), code(Reason::kept),
       code(Reason::outside_valid_range), code(Reason::not_finite), code(Reason::position),
       code(Reason::outside_window), code(Reason::channel_dropped), code(Reason::provider_flag),
       code(Reason::provider_flag), code(Reason::outside_region), code(Reason::blocked_station),
       code(Reason::time), code(Reason::height)},
      at::kInt);
  EXPECT_TRUE(identical(codes, expected));

  const auto text = reason_table(table, codes);
  EXPECT_TRUE(says(text, "variable        rows      kept")) << text;
  EXPECT_TRUE(says(text, "\nt2m               13")) << text;
  EXPECT_TRUE(says(text, "\nall               14         2")) << text;
  EXPECT_FALSE(says(text, "gross_departure")) << text;

  rules.accept_suspect = true;
  rules.range["t2m"] = {180, 450};
  rules.drop_duplicates = false;
  const auto loose = quality_control(table, rules);
  EXPECT_EQ(loose[9].item<int>(), 0);
  EXPECT_EQ(loose[3].item<int>(), 0);
  EXPECT_EQ(loose[1].item<int>(), 0);
}

TEST(SurfaceControl, ChecksAgainstTheBackground) {
  auto table =
      table_of({{"2014-04-01", "a", 280}, {"2014-04-01", "b", 291}, {"2014-04-01", "c", 280}});
  SurfaceRules rules;
  rules.gross_limit = 2;
  EXPECT_TRUE(says(message_of([&] { quality_control(table, rules); }), "no column background"));
  table.set("background", at::tensor({279.f, 280.f, NAN}), "by variable");
  table.set("background_sd", at::full({3}, 4.f), "by variable");
  table.set("error_sd", at::full({3}, 3.f), "by variable");
  EXPECT_TRUE(identical(
      quality_control(table, rules),
      at::tensor({0, code(Reason::gross_departure), code(Reason::gross_departure)}, at::kInt)));
  rules.gross_limit = 2.3;
  EXPECT_EQ(quality_control(table, rules)[1].item<int>(), 0);
}

TEST(SurfaceControl, RefusesRulesThatCannotBe) {
  const auto table = table_of({{"2014-04-01", "a", 280}});
  SurfaceRules rules;
  rules.variables = {"t3m"};
  EXPECT_TRUE(says(message_of([&] { quality_control(table, rules); }), "expected one of t2m"));
  rules = {};
  rules.range["t2m"] = {300, 200};
  EXPECT_TRUE(says(message_of([&] { quality_control(table, rules); }), "ascending range"));
  EXPECT_TRUE(says(message_of([&] { quality_control(Table(), SurfaceRules{}); }), "time_ns"));
  EXPECT_THROW(count_reasons(at::tensor({99}, at::kInt)), Error);
}

TEST(SurfaceControl, UnknownNumbersAreRejected) {
  auto table = table_of({{"2014-04-01", "a", 280}, {"2014-04-01", "b", 280}});
  table.set("variable", at::tensor({99, 0}, at::kInt));
  table.set("platform", at::tensor({0, -1}, at::kInt));
  const auto codes = quality_control(table, SurfaceRules{});
  EXPECT_TRUE(identical(
      codes,
      at::tensor({code(Reason::unknown_channel), code(Reason::unknown_platform)}, at::kInt)));
  EXPECT_TRUE(says(reason_table(table, codes), "unknown"));
}

}  // namespace
}  // namespace halcyon::obs
