// SPDX-License-Identifier: Apache-2.0
// A run whose YAML is wrong ends before any work, with file, line and what was probably meant.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halcyon/base/files.h"
#include "tests/apps/small_runs.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// In the file of a command (or the system's), this text becomes that; the message tells the line
// and contains what.
struct Mistake {
  const char *in, *text, *becomes, *what;
};

class RunErrorsCli : public testing::Test {
 protected:
  static const test::SmallRuns& runs() {
    static const test::SmallRuns small;
    return small;
  }

  static void expect_refused(const std::string& command, const Mistake& m) {
    auto wrong = read_text(runs().file(m.in));
    const auto place = wrong.find(m.text);
    ASSERT_NE(place, std::string::npos) << m.text;
    const auto line =
        1 + std::count(wrong.begin(), wrong.begin() + static_cast<int64_t>(place), '\n');
    wrong.replace(place, std::string_view(m.text).size(), m.becomes);
    const bool in_system = std::string_view(m.in) == "system.yaml";
    const std::string name = in_system ? "bad_system.yaml" : "bad.yaml";
    write_text(runs().file(name), wrong);
    const auto result = in_system ? runs().run(command, "--set system={}/bad_system.yaml")
                                  : test::halcyon_says(command + " " + runs().quoted("bad.yaml"));
    EXPECT_EQ(result.code, 3) << m.becomes << "\n" << result.output;
    EXPECT_THAT(result.output, AllOf(HasSubstr("halcyon: error: "), HasSubstr(m.what),
                                     HasSubstr(fmt::format("{}:{}: ", name, line))))
        << m.becomes;
    for (const char* output : {"analysis", "training", "trained.safetensors", "scores.csv"})
      EXPECT_FALSE(fs::exists(runs().file(output))) << m.becomes;
  }
};

TEST_F(RunErrorsCli, Analyze) {
  const Mistake mistakes[] = {
      {"analyze.yaml", "plots: {enabled", "plots: {enabld", "did you mean 'enabled'?"},
      {"analyze.yaml", "{files: city_t2m.csv}", "{files: city_t2m.csv, withold: [Cork]}",
       "did you mean 'withhold'?"},
      {"analyze.yaml", "plots:", "plot:", "did you mean 'plots'?"},
      {"analyze.yaml", "enabled: false", "enabled: 7", "enabled"},
      {"analyze.yaml", "step: 6h", "step: 6x", "6x"},
      {"analyze.yaml", "step: 6h", "step: 0h", "step"},
      {"analyze.yaml", "end: 2014-02-01T06", "end: 2014-01-01", "end"},
      {"analyze.yaml", "end: 2014-02-01T06", "end: tomorrow", "tomorrow"},
      {"analyze.yaml", "weights.safetensors", "wieghts.safetensors", "wieghts.safetensors"},
      {"analyze.yaml", "system: system.yaml", "system: none.yaml", "none.yaml"},
      {"analyze.yaml", "files: city_t2m.csv", "files: \"none*.csv\"", "none*.csv"},
      {"analyze.yaml", "{files: city_t2m.csv}", "{files: city_t2m.csv, variable: t3m}", "t2m"},
      {"analyze.yaml", "{files: city_t2m.csv}", "{files: city_t2m.csv, format: grib}", "grib"},
      {"analyze.yaml", "{files: city_t2m.csv}", "{files: city_t2m.csv, error_sd: -1}", "error_sd"},
      {"analyze.yaml", "plots:", "quality_control: {lowest: 200}\nplots:", "highest"},
      {"analyze.yaml", "plots:", "quality_control: {lowest: 300, highest: 200}\nplots:", "highest"},
      {"analyze.yaml", "plots:", "device: gpu\nplots:", "gpu"},
  };
  for (const auto& mistake : mistakes) expect_refused("analyze", mistake);
}

TEST_F(RunErrorsCli, System) {
  const Mistake mistakes[] = {
      {"system.yaml", "ages: [0h, 6h]", "ages: [0h, 6x]", "6x"},
      {"system.yaml", "ages: [0h, 6h]", "ages: [6h, 0h]", "ascending"},
      {"system.yaml", "fields: air.nc", "fields: none.nc", "none.nc"},
      {"system.yaml", "token_level: 2", "token_level: two", "token_level"},
      {"system.yaml", "pixel_level: 4", "pixel_level: 1", "pixel_level"},
  };
  for (const auto& mistake : mistakes) expect_refused("analyze", mistake);
  // intervals that overlap: the line is that of the first purpose
  auto text = read_text(runs().file("system.yaml"));
  text.replace(text.find("start: 2014-01-01"), 17, "start: 2013-12-01");
  write_text(runs().file("bad_system.yaml"), text);
  const auto result = runs().run("analyze", "--set system={}/bad_system.yaml");
  EXPECT_EQ(result.code, 3) << result.output;
  EXPECT_THAT(result.output, HasSubstr("bad_system.yaml:8: "));
  write_text(runs().file("bad_system.yaml"),
             read_text(runs().file("system.yaml")) + "token_levle: 2\n");
  const auto misspelt = runs().run("analyze", "--set system={}/bad_system.yaml");
  EXPECT_EQ(misspelt.code, 3);
  EXPECT_THAT(misspelt.output,
              AllOf(HasSubstr("bad_system.yaml:10: "), HasSubstr("did you mean 'token_level'?")));
}

TEST_F(RunErrorsCli, Train) {
  const Mistake mistakes[] = {
      {"train.yaml", "steps: 3", "steps: three", "three"},
      {"train.yaml", "networks: 1", "networks: 0", "networks"},
      {"train.yaml", "fewest: 5", "fewset: 5", "did you mean 'fewest'?"},
      {"train.yaml", "west: 240", "west: 280", "west"},
      {"train.yaml", "hidden_size: 16", "hidden_size: 15", "hidden_size"},
      {"train.yaml", "num_layers: 1", "num_layers: 1.5", "num_layers"},
  };
  for (const auto& mistake : mistakes) expect_refused("train", mistake);
  const auto result = runs().run("train", "--set training.sede=1");
  EXPECT_EQ(result.code, 3);
  EXPECT_THAT(result.output, AllOf(HasSubstr("--set training.sede=1"), HasSubstr("'seed'")));
}

TEST_F(RunErrorsCli, Evaluate) {
  const Mistake mistakes[] = {
      {"evaluate.yaml", "count: 9", "cuont: 9", "did you mean 'count'?"},
      {"evaluate.yaml", "sites: city_stations.csv", "sites: none.csv", "none.csv"},
      {"evaluate.yaml", "end: 2014-03-01", "end: 2013-03-01", "end"},
      {"evaluate.yaml", "output: scores.csv", "noise_sd: 0", "noise_sd"},
      {"evaluate.yaml", "west: 245", "west: left", "west"},
  };
  for (const auto& mistake : mistakes) expect_refused("evaluate", mistake);
}

TEST_F(RunErrorsCli, NoYamlAtAll) {
  write_text(runs().file("bad.yaml"), "system: [unclosed\n");
  for (const char* command : {"analyze", "train", "evaluate"}) {
    const auto result = test::halcyon_says(std::string(command) + " " + runs().quoted("bad.yaml"));
    EXPECT_EQ(result.code, 3) << result.output;
    EXPECT_THAT(result.output, HasSubstr("bad.yaml"));
    const auto none = test::halcyon_says(std::string(command) + " /no/such.yaml");
    EXPECT_EQ(none.code, 3) << none.output;
    EXPECT_THAT(none.output, HasSubstr("/no/such.yaml"));
    EXPECT_EQ(test::halcyon_says(command).code, 2);
  }
}

}  // namespace
}  // namespace halcyon
