// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "halcyon/base/files.h"
#include "halcyon/verify/score_table.h"
#include "tests/apps/small_runs.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class EvaluateCli : public testing::Test {
 protected:
  static const test::SmallRuns& runs() {
    static const test::SmallRuns small;
    return small;
  }
  static const verify::ScoreTable& table() {
    static const verify::ScoreTable scores = [] {
      const auto result = runs().run("evaluate");
      EXPECT_EQ(result.code, 0) << result.output;
      EXPECT_THAT(result.output, AllOf(HasSubstr("Halcyon"), HasSubstr("climatology")));
      return verify::read_score_table(runs().file("scores.csv"));
    }();
    return scores;
  }
};

TEST_F(EvaluateCli, ScoresFourAnalysersByThreeProtocols) {
  ASSERT_EQ(table().rows.size(), 12u);
  for (const char* protocol :
       {"real, leave one station out", "simulated at stations", "simulated at random sites"}) {
    const auto& climatology = table().at(protocol, "climatology");
    const auto& network = table().at(protocol, "Halcyon");
    EXPECT_EQ(network.units, "K");
    EXPECT_GT(network.times, 0);
    EXPECT_LE(network.score.low, network.score.value);
    EXPECT_GE(network.score.high, network.score.value);
    // waves with observations: optimal interpolation, the reference, beats climatology
    EXPECT_EQ(climatology.reference, table().rows[0].analyser);
    EXPECT_GT(climatology.difference->value, 0.3) << protocol;
  }
}

TEST_F(EvaluateCli, ARerunGivesTheSameScores) {
  const auto result = runs().run("evaluate", "--set output={}/made/here/scores.json");
  ASSERT_EQ(result.code, 0) << result.output;
  const auto json = nlohmann::json::parse(read_text(runs().file("made/here/scores.json")));
  const auto text = json.dump();
  for (const auto& row : table().rows) EXPECT_THAT(text, HasSubstr(row.analyser));
  ASSERT_EQ(runs().run("evaluate", "--set output={}/again.csv").code, 0);
  const auto again = verify::read_score_table(runs().file("again.csv"));
  ASSERT_EQ(again.rows.size(), table().rows.size());
  for (std::size_t i = 0; i < again.rows.size(); ++i) {
    EXPECT_EQ(again.rows[i].score.value, table().rows[i].score.value);
    EXPECT_EQ(again.rows[i].score.low, table().rows[i].score.low);
  }
}

TEST_F(EvaluateCli, BadInputEndsBeforeTheScores) {
  write_text(runs().file("atlantis.csv"), "datetime,Atlantis\n2014-01-01T00,280\n");
  write_text(runs().file("ragged.csv"), "datetime,Alba,Bern\n2014-01-01T00,280\n");
  write_text(runs().file("half.safetensors"),
             read_text(runs().file("weights.safetensors")).substr(0, 4000));
  const std::tuple<std::string, int, std::string> cases[] = {
      {"--set stations.reports={}/atlantis.csv", 4, "atlantis.csv"},
      {"--set stations.reports={}/ragged.csv", 4, "ragged.csv:2"},
      {"--set checkpoint={}/half.safetensors", 4, "half.safetensors"},
      {"--set checkpoint={}/none.safetensors", 3, "none.safetensors"},
      {"--set 'real_period={start: 2020-01-01, end: 2020-02-01}'", 3, "2020-01-01"},
      {"--set 'focus={west: 10, east: 20, south: 27, north: 40}'", 3, "got none in 10 to 20 east"},
      {"--set 'focus={west: 10, east: 20, south: 40, north: 27}'", 3, "expected more than south"},
  };
  for (const auto& [options, code, what] : cases) {
    const auto result = runs().run("evaluate", options + " --set output={}/never.csv");
    EXPECT_EQ(result.code, code) << options << "\n" << result.output;
    EXPECT_THAT(result.output, AllOf(HasSubstr("halcyon: error: "), HasSubstr(what)));
    EXPECT_FALSE(fs::exists(runs().file("never.csv")));
  }
}

TEST_F(EvaluateCli, ADryRunWritesNothing) {
  const auto result = runs().run("evaluate", "--dry-run --set output={}/dry/scores.json");
  EXPECT_EQ(result.code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("valid"));
  EXPECT_FALSE(fs::exists(runs().file("dry")));
}

}  // namespace
}  // namespace halcyon
