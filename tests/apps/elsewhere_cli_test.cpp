// SPDX-License-Identifier: Apache-2.0
// Files as other programs and people make them: their names, their encodings, reports said twice.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "halcyon/base/files.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/text.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/observation_file.h"
#include "halcyon/obs/variables.h"
#include "halcyon/state/read_fields.h"
#include "tests/apps/small_runs.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using test::halcyon_says;
using testing::HasSubstr;

class ElsewhereCli : public testing::Test {
 protected:
  static const test::SmallRuns& runs() {
    static const test::SmallRuns small;
    return small;
  }
  static test::Result analyze(const std::string& files, const std::string& output,
                              const std::string& more = "") {
    return runs().run("analyze", "--set times.end=2014-02-01T00 --set 'observations.files=\"{}/" +
                                     files + "\"' --set 'output=\"{}/" + output + "\"' " + more);
  }
  static nlohmann::json record(const std::string& output) {
    return nlohmann::json::parse(read_text(runs().file(output) / "run.json"));
  }
  static at::Tensor analysis(const std::string& output) {
    return state::read_fields(runs().file(output) / "analysis_latlon.nc").data;
  }
};

TEST_F(ElsewhereCli, LatinNamesInTextAreRefusedWithTheirPlace) {
  const test::TemporaryFolder folder;
  const std::string quebec =
      "Qu\xE9"
      "bec";
  write_text(folder / "town_t.csv", "datetime,Boston," + quebec + "\n2014-11-10,280.1,271.5\n");
  write_text(folder / "town_stations.csv", "station,lat,lon\nBoston,42.4,-71.1\n");
  for (const std::string command : {"inspect", "inspect --json", "convert -o /tmp/never.nc"}) {
    const auto result =
        halcyon_says("obs " + command + " '" + (folder / "town_t.csv").string() + "'");
    EXPECT_EQ(result.code, 4) << result.output;
    EXPECT_THAT(result.output,
                HasSubstr("town_t.csv:1:19: expected UTF-8 text, got the byte 0xE9"));
  }
  write_text(folder / "run.yaml", "system: " + quebec + "\n");
  const auto run = halcyon_says("analyze '" + (folder / "run.yaml").string() + "'");
  EXPECT_EQ(run.code, 3) << run.output;
  EXPECT_THAT(run.output, HasSubstr("run.yaml:1: character 11: expected UTF-8 text"));
}

// Also outputs; the record of the run is text that everybody can read.
TEST_F(ElsewhereCli, NamesOfFilesMayBeAnything) {
  const auto plain = analyze("city_t2m.csv", "plain");
  ASSERT_EQ(plain.code, 0) << plain.output;
  const auto table = read_text(runs().file("city_t2m.csv")),
             stations = read_text(runs().file("city_stations.csv"));
  for (const std::string name : {"run[1]", "what?", "a*b", "with space", "{c}", "# % & ;",
                                 "Qu\xE9"
                                 "bec"}) {
    fs::create_directories(runs().file(name));
    write_text(runs().file(name) / "city_stations.csv", stations);
    write_text(runs().file(name) / ("city_" + name + ".csv"), table);
    const auto result = analyze(name + "/city_" + name + ".csv", name + "/out");
    ASSERT_EQ(result.code, 0) << name << "\n" << result.output;
    EXPECT_TRUE(test::identical(analysis(name + "/out"), analysis("plain"))) << name;
    const auto text = read_text(runs().file(name + "/out") / "run.json");
    EXPECT_TRUE(is_utf8(text)) << name;
    EXPECT_THAT(record(name + "/out")["inputs"][0]["path"].get<std::string>(),
                HasSubstr(printable(name)));
    const NetcdfReader feedback(runs().file(name + "/out") / "feedback.nc");
    EXPECT_TRUE(is_utf8(feedback.text("", "history").value()));
    const auto inspected =
        halcyon_says("obs inspect --json " + runs().quoted(name + "/city_" + name + ".csv"), "");
    EXPECT_EQ(inspected.code, 0) << name;
    EXPECT_EQ(nlohmann::json::parse(inspected.output)[0]["rows"], 90 * 4 * 5) << name;
    const auto drawn = halcyon_says("plot " + runs().quoted(name + "/out/analysis_latlon.nc"));
    EXPECT_EQ(drawn.code, 0) << drawn.output;
  }
  // a pattern in a folder whose name looks like one
  const auto pattern = analyze("run[1]/city_r*.csv", "by_pattern");
  EXPECT_EQ(pattern.code, 0) << pattern.output;
  const auto none = analyze("run[1]/nothing*.csv", "none");
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.output, HasSubstr("no file matches"));
}

struct Report {
  std::string station;
  int64_t minutes;  // after midnight
  double lat, lon, value;
};

void write_reports(const fs::path& path, const std::vector<Report>& reports) {
  std::vector<int64_t> time;
  std::vector<double> lat, lon, value;
  std::vector<std::string> station;
  for (const auto& r : reports) {
    time.push_back((parse_time("2014-02-01") + 60 * r.minutes) * 1'000'000'000);
    lat.push_back(r.lat);
    lon.push_back(r.lon);
    value.push_back(r.value);
    station.push_back(r.station);
  }
  auto table = obs::make_table(at::tensor(time, at::kLong), at::tensor(lat, at::kDouble),
                               at::tensor(lon, at::kDouble), at::tensor(value, at::kDouble),
                               obs::variable_number("t2m"));
  table.set_text("station", station);
  obs::write_observations(path, table);
}

TEST_F(ElsewhereCli, AStationThatReportsOftenCountsOnce) {
  const std::vector<Report> once = {{"a", 0, 40, 255, 281}, {"b", 4, 35, 262, 290}};
  std::vector<Report> often;
  for (int64_t minutes = -25; minutes <= 25; minutes += 5)
    often.push_back({"a", minutes, 40, 255, minutes == 0 ? 281.0 : 283.0});
  often.push_back(once[1]);
  often.push_back({"b", 4, 35.004, -98, 290});  // the same with other digits
  write_reports(runs().file("once.nc"), once);
  write_reports(runs().file("often.nc"), often);
  const auto first = analyze("once.nc", "once"), second = analyze("often.nc", "often"),
             third = analyze("often.nc", "inflated", "--set observations.several_reports=inflate");
  for (const auto& result : {first, second, third}) ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_TRUE(test::identical(analysis("once"), analysis("often")));
  const auto reports = record("often")["reports"];
  EXPECT_EQ(reports["used"], 2);
  EXPECT_EQ(reports["not_nearest"], 10);
  EXPECT_EQ(reports["duplicate"], 1);
  EXPECT_EQ(record("often")["feedback"]["by_reason"], reports);
  EXPECT_EQ(record("often")["analyses"][0]["observations_used"], 2);

  EXPECT_EQ(record("inflated")["reports"]["used"], 12);
  const NetcdfReader file(runs().file("inflated") / "feedback.nc");
  const auto error = file.read_physical("error_sd", at::kDouble);
  EXPECT_NEAR(error[0].item<double>(), 2 * std::sqrt(11.0), 1e-6);
  EXPECT_EQ(error[11].item<double>(), 2);
  const auto wrong = analyze("once.nc", "wrong", "--set observations.several_reports=nearst");
  EXPECT_EQ(wrong.code, 3);
  EXPECT_THAT(wrong.output, HasSubstr("did you mean 'nearest'?"));
}

TEST_F(ElsewhereCli, StatisticsOfBiasCountAReportOnce) {
  // the cities' table again, with each report of one station five times more
  auto text = read_text(runs().file("city_t2m.csv"));
  std::string often;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = text.find('\n', at);
    const auto line = text.substr(at, end - at);
    at = end + 1;
    often += line + "\n";
    if (line.starts_with("datetime")) continue;
    const auto comma = line.find(',');
    for (const char* minute : {"04", "08", "12", "16", "20"}) {
      auto time = line.substr(0, comma);
      time.replace(14, 2, minute);
      often += time + line.substr(comma, line.find(',', comma + 1) - comma) + ",,,,\n";
    }
  }
  write_text(runs().file("city_often.csv"), often);
  const std::string bias = "--set 'bias_correction={start: 2014-01-01, end: 2014-03-01}'";
  const auto once = analyze("city_t2m.csv", "bias_once", bias),
             more = analyze("city_often.csv", "bias_often", bias);
  ASSERT_EQ(once.code, 0) << once.output;
  ASSERT_EQ(more.code, 0) << more.output;
  EXPECT_TRUE(test::identical(analysis("bias_once"), analysis("bias_often")));
}

}  // namespace
}  // namespace halcyon
