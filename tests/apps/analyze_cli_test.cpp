// SPDX-License-Identifier: Apache-2.0
// halcyon analyze as a user has it: what it writes, and that it writes it again.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "halcyon/base/files.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/time.h"
#include "halcyon/state/read_fields.h"
#include "tests/apps/small_runs.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using test::identical;
using testing::AllOf;
using testing::HasSubstr;

nlohmann::json record_of(const fs::path& folder) {
  return nlohmann::json::parse(read_text(folder / "run.json"));
}

class AnalyzeCli : public testing::Test {
 protected:
  static const test::SmallRuns& runs() {
    static const test::SmallRuns small;
    return small;
  }
  // The run as it is configured, once for all tests.
  static const fs::path& products() {
    static const fs::path folder = [] {
      const auto result = runs().run("analyze");
      EXPECT_EQ(result.code, 0) << result.output;
      return runs().file("analysis");
    }();
    return folder;
  }
};

TEST_F(AnalyzeCli, WritesTheAnalysisOnBothGrids) {
  const auto system = runs().system();
  const auto grid = state::read_fields(products() / "analysis_latlon.nc"),
             pixels = state::read_fields(products() / "analysis_healpix.nc");
  const std::vector<int64_t> times{parse_time("2014-02-01T00"), parse_time("2014-02-01T06")};
  for (const auto* fields : {&grid, &pixels}) {
    EXPECT_EQ(fields->times, times);
    ASSERT_EQ(fields->variables.size(), 1u);
    EXPECT_EQ(fields->variables[0].name, "air");
    EXPECT_EQ(fields->variables[0].standard_name, "air_temperature");
    EXPECT_EQ(fields->variables[0].units, "K");
  }
  EXPECT_EQ(std::get<LatLonGrid>(grid.grid), system.grid);
  EXPECT_EQ(std::get<Region>(pixels.grid), system.pixels);
  EXPECT_TRUE(grid.data.isfinite().all().item<bool>());
  EXPECT_GT(grid.data.min().item<float>(), 220);
  EXPECT_LT(grid.data.max().item<float>(), 340);
}

// Weights in half the memory; the analysis is the same but for rounding.
TEST_F(AnalyzeCli, InBfloat16) {
  const auto folder = runs().file("in-bf16");
  const auto result = runs().run("analyze", "--set precision=bf16 --set output=" + folder.string());
  ASSERT_EQ(result.code, 0) << result.output;
  const auto narrow = state::read_fields(folder / "analysis_latlon.nc"),
             wide = state::read_fields(products() / "analysis_latlon.nc");
  EXPECT_FALSE(identical(narrow.data, wide.data));
  EXPECT_LT((narrow.data - wide.data).abs().max().item<double>(), 0.3);
  EXPECT_EQ(record_of(folder)["configuration"]["run"]["precision"], "bf16");
}

TEST_F(AnalyzeCli, FeedbackHoldsEveryReportOfEveryWindow) {
  const NetcdfReader file(products() / "feedback.nc");
  const auto rows = file.dimension("obs");
  EXPECT_EQ(rows, 2 * 2 * 5);  // two analyses, two ages, five cities
  EXPECT_TRUE(file.read("reason").eq(0).all().item<bool>());
  EXPECT_THAT(*file.text("reason", "flag_meanings"),
              testing::StartsWith("used not_finite outside_valid_range "));
  EXPECT_EQ(file.numbers("reason", "flag_values")->size(), 19u);
  const auto physical = [&](const char* name) { return file.read_physical(name, at::kDouble); };
  const auto value = physical("air"), climatology = physical("climatology"),
             analysis = physical("analysis");
  EXPECT_TRUE(test::near(physical("ob"), value - climatology, 1e-5));
  EXPECT_TRUE(test::near(physical("oa"), value - analysis, 1e-5));
  EXPECT_TRUE(physical("bias").isnan().all().item<bool>());  // no correction was asked for
  EXPECT_TRUE(physical("error_sd").eq(2).all().item<bool>());
  const auto stations = file.read_strings("station");
  EXPECT_EQ(std::count(stations.begin(), stations.end(), "Cork"), 4);

  // analysis at the place is the analysis interpolated
  const auto fields = state::read_fields(products() / "analysis_latlon.nc");
  const auto h = bilinear_to_points(std::get<LatLonGrid>(fields.grid), physical("longitude"),
                                    physical("latitude"));
  const auto at_first = h.apply(fields.data[0][0].to(at::kDouble));
  EXPECT_TRUE(test::near(analysis.slice(0, 0, 10), at_first.slice(0, 0, 10), 1e-6));
}

TEST_F(AnalyzeCli, TheRecordTellsHowToRepeatIt) {
  const auto record = record_of(products());
  EXPECT_EQ(record["program"], "halcyon");
  EXPECT_THAT(record["command_line"].get<std::string>(),
              AllOf(HasSubstr("halcyon analyze"), HasSubstr("analyze.yaml")));
  EXPECT_EQ(record["checkpoint"]["sha256"], sha256_of_file(runs().file("weights.safetensors")));
  EXPECT_EQ(record["inputs"][0]["sha256"], sha256_of_file(runs().file("city_t2m.csv")));
  EXPECT_EQ(record["fields"]["sha256"], sha256_of_file(runs().file("air.nc")));
  EXPECT_EQ(record["feedback"]["rows"], 20);
  EXPECT_EQ(record["feedback"]["used"], 20);
  EXPECT_EQ(record["feedback"]["by_reason"]["used"], 20);
  // three times of five cities are in a window, the other reports of the file in none
  EXPECT_EQ(record["reports"]["used"], 15);
  EXPECT_EQ(record["reports"]["outside_window"], (90 * 4 - 3) * 5);
  EXPECT_EQ(record["analyses"][1]["observations_used"], 10);
  EXPECT_EQ(record["analyses"][1]["from_no_observations"], false);
  EXPECT_EQ(record["configuration"]["run"]["observations"]["age_tolerance"], "PT30M");
}

TEST_F(AnalyzeCli, ARerunGivesTheSameNumbers) {
  const auto again = runs().run("analyze", "--set output={}/again");
  ASSERT_EQ(again.code, 0) << again.output;
  for (const char* name : {"analysis_latlon.nc", "analysis_healpix.nc"}) {
    EXPECT_TRUE(identical(state::read_fields(runs().file("again") / name).data,
                          state::read_fields(products() / name).data));
  }
  const NetcdfReader a(products() / "feedback.nc"), b(runs().file("again") / "feedback.nc");
  for (const auto& variable : a.variables()) {
    if (variable.kind != NetcdfKind::number) continue;
    EXPECT_TRUE(identical(b.read(variable.name), a.read(variable.name))) << variable.name;
  }
  EXPECT_EQ(record_of(runs().file("again"))["feedback"], record_of(products())["feedback"]);
}

TEST_F(AnalyzeCli, WithheldStationsAndBiasesShowInTheFeedback) {
  const auto result = runs().run("analyze",
                                 "--set output={}/withheld --set observations.withhold=Cork "
                                 "--set 'bias_correction={start: 2014-01-01, end: 2014-03-01}'");
  ASSERT_EQ(result.code, 0) << result.output;
  const auto record = record_of(runs().file("withheld"));
  EXPECT_EQ(record["feedback"]["by_reason"]["blocked_station"], 4);
  EXPECT_EQ(record["feedback"]["used"], 16);
  const NetcdfReader file(runs().file("withheld") / "feedback.nc");
  EXPECT_FALSE(file.read_physical("bias", at::kDouble).isnan().any().item<bool>());
  // reports are within 0.5 K of the fields, and so are their statistics
  EXPECT_LT(file.read_physical("error_sd", at::kDouble).max().item<double>(), 0.6);
}

TEST_F(AnalyzeCli, DrawsPictures) {
  const auto result = runs().run("analyze",
                                 "--set output={}/drawn --set plots.enabled=true "
                                 "--set plots.series_station=Bern");
  ASSERT_EQ(result.code, 0) << result.output;
  for (const char* name : {"analysis.png", "departure.png", "series.png"}) {
    const auto bytes = read_text(runs().file("drawn") / name);
    EXPECT_EQ(bytes.substr(0, 8), "\x89PNG\r\n\x1a\n") << name;
    EXPECT_GT(bytes.size(), 5000u) << name;
    EXPECT_THAT(result.output, HasSubstr(name));
  }
}

TEST_F(AnalyzeCli, NoObservationIsFlaggedNotRefused) {
  const auto result = runs().run("analyze",
                                 "--set output={}/none --set times.start=2014-03-31T18 "
                                 "--set times.end=2014-04-01T12");
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_THAT(result.output, AllOf(HasSubstr("warn"), HasSubstr("2014-04-01T12:00:00Z"),
                                   HasSubstr("no usable observation")));
  const auto record = record_of(runs().file("none"));
  ASSERT_EQ(record["analyses"].size(), 4u);
  EXPECT_EQ(record["analyses"][1]["from_no_observations"], false);
  EXPECT_EQ(record["analyses"][2]["from_no_observations"], true);
  EXPECT_EQ(record["analyses"][3]["observations_used"], 0);
  const NetcdfReader file(runs().file("none") / "analysis_latlon.nc");
  EXPECT_EQ(file.text("", "analyses_without_observations"),
            "2014-04-01T06:00:00Z 2014-04-01T12:00:00Z");
  EXPECT_TRUE(file.read_physical("air", at::kFloat).isfinite().all().item<bool>());
}

TEST_F(AnalyzeCli, AFileWithoutReportsStillGivesAnAnalysis) {
  write_text(runs().file("city_empty.csv"), "datetime,Alba,Bern\n");
  const auto result =
      runs().run("analyze", "--set output={}/empty --set observations.files={}/city_empty.csv");
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("no usable observation"));
  EXPECT_EQ(record_of(runs().file("empty"))["feedback"]["rows"], 0);
  const NetcdfReader feedback(runs().file("empty") / "feedback.nc");
  EXPECT_EQ(feedback.dimension("obs"), 0);
}

TEST_F(AnalyzeCli, ADryRunWritesNothing) {
  const auto result = runs().run("analyze", "--dry-run --set output={}/dry");
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.output, HasSubstr("valid"));
  EXPECT_FALSE(fs::exists(runs().file("dry")));
}

}  // namespace
}  // namespace halcyon
