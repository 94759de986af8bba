// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "halcyon/base/files.h"
#include "tests/apps/small_runs.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Wide enough for products that are worth choosing between.
constexpr const char* kWide =
    "--set model.hidden_size=64 --set model.mlp_ratio=4 --set batch.networks=16 ";

class TuneCli : public testing::Test {
 protected:
  static const test::SmallRuns& runs() {
    static const test::SmallRuns small;
    return small;
  }
  static fs::path file(const std::string& name) { return runs().file(name); }
  static std::string arguments_file() {
    const auto path = file("args.json");
    write_text(path, R"({"out_channels": 3, "hidden_size": 64, "num_heads": 2, "level_in": 3,)"
                     R"( "level_model": 3, "time_length": 1, "pixel_attn_n_q_heads": 16,)"
                     R"( "pixel_attn_n_kv_heads": 1, "pixel_attn_head_dim": 8})");
    return "'" + path.string() + "' --observations 10 ";
  }
  static test::Result tune(const std::string& arguments, const std::string& before = "") {
    return test::halcyon_says("tune " + arguments, "2>&1", before);
  }
  // "operation: problem" of every choice in the file.
  static std::set<std::string> problems(const std::string& name) {
    std::set<std::string> all;
    const auto content = nlohmann::json::parse(read_text(file(name)));
    for (const auto& version : content.at("choices"))
      for (const auto& machine : version)
        for (const auto& [operation, of_operation] : machine.items())
          for (const auto& item : of_operation.items()) all.insert(operation + ": " + item.key());
    return all;
  }
};

TEST_F(TuneCli, FillsTheFileAndASecondRunMeasuresNothing) {
  const auto cache = "--cache '" + file("new/tuned.json").string() + "'";
  const auto first = tune(arguments_file() + cache);
  ASSERT_EQ(first.code, 0) << first.output;
  EXPECT_THAT(first.output,
              AllOf(HasSubstr("linear forward: 1024 rows, 64 to 256 channels"),
                    HasSubstr(" ms, measured)"), HasSubstr(" measured, 0 were there")));
  EXPECT_GE(problems("new/tuned.json").size(), 5u);
  const auto content = read_text(file("new/tuned.json"));
  const auto second = tune(arguments_file() + cache);
  ASSERT_EQ(second.code, 0) << second.output;
  EXPECT_THAT(second.output, AllOf(HasSubstr(" ms, was there)"), HasSubstr(": 0 measured, "),
                                   Not(HasSubstr(" ms, measured)"))));
  EXPECT_EQ(read_text(file("new/tuned.json")), content);
  // the backward and other batches are new, the rest is not
  const auto more = tune(arguments_file() + cache + " --training --batch 1,2");
  ASSERT_EQ(more.code, 0) << more.output;
  EXPECT_THAT(more.output, AllOf(HasSubstr("linear backward, weight: 2048 rows"),
                                 HasSubstr(" ms, was there)"), HasSubstr(" ms, measured)")));
}

TEST_F(TuneCli, TheEnvironmentNamesTheFileToo) {
  const auto result = tune(arguments_file(), fmt::format("export HALCYON_TUNING_CACHE='{}';",
                                                         file("named.json").string()));
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_FALSE(problems("named.json").empty());
}

TEST_F(TuneCli, ACorruptFileIsWarnedOfAndReplaced) {
  write_text(file("corrupt.json"), R"({"format": "halcyon tuning cache", "choi)");
  const auto result = tune(arguments_file() + "--cache '" + file("corrupt.json").string() + "'");
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_THAT(result.output, AllOf(HasSubstr("expected a tuning cache in"),
                                   HasSubstr("corrupt.json"), HasSubstr("measured, 0 were there")));
  EXPECT_GE(problems("corrupt.json").size(), 5u);
}

TEST_F(TuneCli, TwoAtOnceBothEndInTheFile) {
  const auto cache = " --cache '" + file("shared.json").string() + "'";
  const auto arguments = arguments_file();
  const auto result = tune(arguments + "--batch 1" + cache + " >/dev/null 2>&1 & '" +
                           (test::binary_dir() / "bin/halcyon").string() + "' tune " + arguments +
                           "--batch 2" + cache + " >/dev/null; code=$?; wait $! && exit $code #");
  ASSERT_EQ(result.code, 0) << result.output;
  const auto all = problems("shared.json");
  for (const int rows : {1024, 2048})
    EXPECT_TRUE(std::any_of(all.begin(), all.end(), [&](const std::string& p) {
      return p.starts_with(fmt::format("linear forward: {} rows", rows));
    })) << rows;
}

// What training and analyses meet is what tune has measured, so that no step stalls.
TEST_F(TuneCli, TrainingAndAnalysesMeetNothingNew) {
  const auto tuned =
      runs().run("tune", std::string(kWide) + "--set tuning.cache={}/tuned.json",
                 "cp '" + file("train.yaml").string() + "' '" + file("tune.yaml").string() + "';");
  ASSERT_EQ(tuned.code, 0) << tuned.output;
  EXPECT_THAT(tuned.output, HasSubstr("linear backward, weight"));
  const auto trained =
      runs().run("train", std::string(kWide) + "--set tuning.cache={}/trained.json");
  ASSERT_EQ(trained.code, 0) << trained.output;
  const auto known = problems("tuned.json"), met = problems("trained.json");
  EXPECT_GE(met.size(), 3u);
  for (const auto& problem : met) EXPECT_TRUE(known.contains(problem)) << problem;

  const std::string week = "--set times.end=2014-02-08T18 --set checkpoint={}/trained.safetensors ";
  fs::copy(file("analyze.yaml"), file("week.yaml"));
  const auto before = tune("'" + file("week.yaml").string() + "' --cache '" +
                           file("week.json").string() + "' --set times.end=2014-02-08T18 " +
                           "--set checkpoint='" + file("trained.safetensors").string() + "'");
  ASSERT_EQ(before.code, 0) << before.output;
  const auto content = read_text(file("week.json"));
  const auto analysed = runs().run("analyze", week + "--set tuning.cache={}/week.json");
  ASSERT_EQ(analysed.code, 0) << analysed.output;
  EXPECT_EQ(read_text(file("week.json")), content);
}

TEST_F(TuneCli, NothingIsTunedUnasked) {
  const auto quiet = runs().run("train", std::string(kWide) + "--set training.output={}/quiet");
  ASSERT_EQ(quiet.code, 0) << quiet.output;
  const auto off = runs().run(
      "train", std::string(kWide) + "--set training.output={}/off --set tuning.enabled=false",
      fmt::format("export HALCYON_TUNING_CACHE='{}';", file("unasked.json").string()));
  ASSERT_EQ(off.code, 0) << off.output;
  EXPECT_FALSE(fs::exists(file("unasked.json")));
}

TEST_F(TuneCli, RefusesWhatItCannotDo) {
  const auto arguments = arguments_file();
  const auto cache = " --cache '" + file("refused.json").string() + "' ";
  write_text(file("bad.json"), "{");
  write_text(file("odd.json"), R"({"hidden_sice": 64})");
  write_text(file("a_file"), "x");
  const auto named = [](const char* name) { return "'" + file(name).string() + "'"; };
  const std::tuple<std::string, int, const char*> cases[] = {
      {"", 2, "MODEL is required"},
      {arguments, 2, "expected a cache file by --cache"},
      {arguments + cache + "--batch 0", 2, "--batch"},
      {arguments + cache + "--batch x", 2, "--batch"},
      {arguments + cache + "--observations 1,-1", 2, "--observations"},
      {arguments + cache + "--set a=b", 2, "expected --set with a YAML configuration only"},
      {named("none.yaml") + cache, 3, "none.yaml"},
      {named("train.yaml") + cache + "--set model.hidden_sice=4 --set model.hidden_size=x", 3,
       "hidden_size"},
      {named("train.yaml") + cache + "--set tuning.enabled=often", 3, "tuning"},
      {named("odd.json") + cache, 3, "did you mean"},
      {named("bad.json") + cache, 4, "expected JSON in"},
      {named("none.safetensors") + cache, 4, "none.safetensors"},
      {arguments + "--cache " + named("a_file/tuned.json"), 5, "a_file"},
  };
  for (const auto& [line, code, reason] : cases) {
    const auto result = tune(line);
    EXPECT_EQ(result.code, code) << line << "\n" << result.output;
    EXPECT_THAT(result.output, AllOf(testing::StartsWith("halcyon: error: "), HasSubstr(reason)));
  }
  EXPECT_FALSE(fs::exists(file("refused.json")));
}

}  // namespace
}  // namespace halcyon
