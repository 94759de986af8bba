// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/tuning/autotuner.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/versions.h"
#include "halcyon/ops/tuning/config.h"
#include "halcyon/ops/tuning/tuning_cache.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using nlohmann::json;
using tuning::fastest;

// Off again, and no choices left, whatever a test did.
class Autotuner : public testing::Test {
 protected:
  void SetUp() override {
    unsetenv("HALCYON_TUNING_CACHE");
    tuning::use_cache_file({});
    tuning::forget_choices();
  }
  void TearDown() override {
    at::globalContext().setDeterministicAlgorithms(false, false);
    tuning::use_cache_file({});
    disable_autotuner();
    unsetenv("HALCYON_TUNING_CACHE");
  }
  static constexpr AutotunerPass kQuick{true, false, 0, 2};
  // The second candidate takes no time.
  static std::size_t choose(const std::string& problem, int* runs = nullptr,
                            const std::vector<std::string>& candidates = {"slow", "fast"}) {
    return fastest({"test", problem, candidates}, kQuick, [&](std::size_t i) {
      if (runs != nullptr) ++*runs;
      if (i == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    });
  }
};

// Runs first: afterwards the environment has no say in this process.
TEST_F(Autotuner, AFileInTheEnvironmentTurnsItOn) {
  EXPECT_FALSE(is_autotuner_enabled());
  for (const char* blank : {"", "  ", "\t"}) {
    setenv("HALCYON_TUNING_CACHE", blank, 1);
    EXPECT_FALSE(is_autotuner_enabled()) << '"' << blank << '"';
  }
  setenv("HALCYON_TUNING_CACHE", "/no/file", 1);
  EXPECT_TRUE(is_autotuner_enabled_for_forward() && is_autotuner_enabled_for_backward());
  at::globalContext().setDeterministicAlgorithms(true, false);
  EXPECT_FALSE(is_autotuner_enabled());
  at::globalContext().setDeterministicAlgorithms(false, false);
  disable_autotuner();
  EXPECT_FALSE(is_autotuner_enabled());
}

TEST_F(Autotuner, TakesTheFastestAndMeasuresOnce) {
  int runs = 0;
  EXPECT_EQ(choose("a", &runs), 1);
  EXPECT_EQ(runs, 4);
  EXPECT_EQ(choose("a", &runs), 1);
  EXPECT_EQ(runs, 4);
  EXPECT_EQ(choose("b", &runs), 1);
  EXPECT_EQ(runs, 8);
}

TEST_F(Autotuner, MeasuresAgainWhenTheChoiceIsNoCandidate) {
  choose("a");
  int runs = 0;
  EXPECT_EQ(choose("a", &runs, {"slow", "other"}), 1);
  EXPECT_EQ(runs, 4);
}

TEST_F(Autotuner, SwitchesSayWhatIsOn) {
  EXPECT_FALSE(is_autotuner_enabled());
  use_autotuner({true}, {false});
  EXPECT_TRUE(is_autotuner_enabled() && is_autotuner_enabled_for_forward());
  EXPECT_FALSE(is_autotuner_enabled_for_backward());
  at::globalContext().setDeterministicAlgorithms(true, false);
  EXPECT_FALSE(is_autotuner_enabled() || tuning::active(tuning::Pass::forward));
  at::globalContext().setDeterministicAlgorithms(false, false);
  EXPECT_TRUE(is_autotuner_enabled_for_forward());
  disable_autotuner();
  EXPECT_FALSE(is_autotuner_enabled());
  EXPECT_THROW(use_autotuner({true, false, -1, 5}), Error);
  EXPECT_THROW(use_autotuner({}, {true, false, 0, 0}), Error);
}

TEST_F(Autotuner, ChoicesOutliveTheProcessInTheFile) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "new" / "cache.json";
  setenv("HALCYON_TUNING_CACHE", file.c_str(), 1);
  choose("a");
  const auto content = json::parse(read_text(file));
  const auto& choices = content.at("choices").at(version());
  ASSERT_EQ(choices.size(), 1);
  EXPECT_TRUE(choices.begin().key().starts_with(cpu_model()));
  EXPECT_EQ(choices.begin().value().at("test").at("a").at("choice"), "fast");
  tuning::forget_choices();
  int runs = 0;
  EXPECT_EQ(choose("a", &runs), 1);
  EXPECT_EQ(runs, 0);
  tuning::forget_choices();
  EXPECT_EQ(choose("a", &runs, {"slow", "other"}), 1);  // what the file names is no candidate
  EXPECT_EQ(runs, 4);
}

TEST_F(Autotuner, TellsWhatWasChosenAndWhatWasThere) {
  const test::TemporaryFolder folder;
  tuning::use_cache_file(folder.path() / "cache.json");
  choose("b");
  choose("a");
  const auto measured = tuning::chosen();
  ASSERT_EQ(measured.size(), 2);
  EXPECT_EQ(measured[0].problem + measured[1].problem, "ba");
  EXPECT_TRUE(measured[0].measured && measured[1].measured);
  tuning::forget_choices();
  choose("a");
  const auto known = tuning::chosen();
  ASSERT_EQ(known.size(), 1);
  EXPECT_FALSE(known[0].measured);
  EXPECT_EQ(known[0].choice.candidate, "fast");
  ASSERT_EQ(known[0].choice.milliseconds.size(), 2);
  for (const auto& [candidate, time] : measured[1].choice.milliseconds)
    EXPECT_NEAR(known[0].choice.milliseconds.at(candidate), time, 1e-4) << candidate;
  EXPECT_GT(known[0].choice.milliseconds.at("slow"), 2.9);
}

// As files of earlier versions of the same number have it.
TEST_F(Autotuner, AChoiceWithoutTimesIsAChoice) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "cache.json";
  tuning::use_cache_file(file);
  choose("a");
  auto content = json::parse(read_text(file));
  auto& choice = content.at("choices").at(version()).begin().value().at("test").at("a");
  for (const json& times : {json(3.5), json(), json::array({1})}) {
    choice = {{"choice", "fast"}, {"milliseconds", times}};
    write_text(file, content.dump());
    const auto stored = tuning::stored_choice("test", "a");
    ASSERT_TRUE(stored.has_value()) << times;
    EXPECT_TRUE(stored->candidate == "fast" && stored->milliseconds.empty()) << times;
  }
}

TEST_F(Autotuner, TheSectionOfARunOptsInAndOut) {
  const auto read = [](const std::string& text) {
    const auto run = config::parse(text, "run.yaml", "/runs");
    const auto c = tuning::Config::from(run);
    run.finish();
    return c;
  };
  EXPECT_FALSE(read("{}").enabled);
  EXPECT_TRUE(read("tuning: {enabled: true}").enabled);
  EXPECT_EQ(read("tuning: {cache: tuned.json}").cache, "/runs/tuned.json");
  EXPECT_THROW(read("tuning: {cash: tuned.json}"), Error);
  EXPECT_THROW(read("tuning: {enabled: often}"), Error);
  EXPECT_THROW(read("tuning: on"), Error);

  setenv("HALCYON_TUNING_CACHE", "/named/by/environment.json", 1);
  EXPECT_TRUE(read("{}").enabled);
  EXPECT_FALSE(read("tuning: {enabled: false}").enabled);
  read("tuning: {cache: tuned.json}").apply();
  EXPECT_TRUE(is_autotuner_enabled());
  EXPECT_EQ(tuning::cache_file(), "/runs/tuned.json");
  read("tuning: {enabled: false}").apply();
  EXPECT_FALSE(is_autotuner_enabled());
}

TEST_F(Autotuner, SomethingElseInTheFileIsReplaced) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "cache.json";
  setenv("HALCYON_TUNING_CACHE", file.c_str(), 1);
  for (const char* text : {"", "{", "[]", "nonsense", R"({"format": "other"})",
                           R"({"format": "halcyon tuning cache", "choices": 3})",
                           R"({"format": "halcyon tuning cache", "choices": {"0.1.0": [1, 2]}})"}) {
    write_text(file, text);
    tuning::forget_choices();
    EXPECT_EQ(choose("a"), 1) << text;
    EXPECT_EQ(tuning::stored_choice("test", "a").value().candidate, "fast") << text;
  }
}

TEST_F(Autotuner, AFileThatCannotBeWrittenCostsTheFileAlone) {
  const test::TemporaryFolder folder;
  write_text(folder.path() / "file", "x");
  setenv("HALCYON_TUNING_CACHE", (folder.path() / "file" / "cache.json").c_str(), 1);
  EXPECT_EQ(choose("a"), 1);
  EXPECT_EQ(choose("a"), 1);
}

TEST_F(Autotuner, ProcessesThatWriteAtOnceLoseNothing) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "cache.json";
  setenv("HALCYON_TUNING_CACHE", file.c_str(), 1);
  constexpr int kProcesses = 6, kChoices = 20;
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t child = fork();
    if (child == 0) {
      for (int i = 0; i < kChoices; ++i)
        tuning::store_choice("test", fmt::format("{} of {}", i, p), {"fast", {}});
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  for (int p = 0; p < kProcesses; ++p) {
    for (int i = 0; i < kChoices; ++i)
      EXPECT_TRUE(tuning::stored_choice("test", fmt::format("{} of {}", i, p))) << p << " " << i;
  }
}

}  // namespace
}  // namespace halcyon
