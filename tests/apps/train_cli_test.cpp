// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "halcyon/base/files.h"
#include "halcyon/base/safetensors.h"
#include "tests/apps/small_runs.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class TrainCli : public testing::Test {
 protected:
  static const test::SmallRuns& runs() {
    static const test::SmallRuns small;
    return small;
  }
  static test::Result train(const std::string& name, const std::string& more = "",
                            const std::string& before = "") {
    return runs().run("train",
                      fmt::format("--set training.output={{}}/{0} "
                                  "--set weights={{}}/{0}.safetensors {1}",
                                  name, more),
                      before);
  }
  static std::string weights(const std::string& name) {
    return read_text(runs().file(name + ".safetensors"));
  }
  // Of a run that nothing disturbed.
  static const std::string& undisturbed() {
    static const std::string bytes = [] {
      const auto result = train("whole");
      EXPECT_EQ(result.code, 0) << result.output;
      EXPECT_THAT(result.output, AllOf(HasSubstr("whole.safetensors"), HasSubstr("loss.png")));
      return weights("whole");
    }();
    return bytes;
  }
  static std::vector<fs::path> checkpoints(const std::string& name) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(runs().file(name)))
      if (entry.path().extension() == ".safetensors") found.push_back(entry.path());
    std::sort(found.begin(), found.end());
    return found;
  }
};

TEST_F(TrainCli, WritesWeightsThatAnalyzeTakes) {
  undisturbed();
  std::ifstream log(runs().file("whole/training.csv"));
  int lines = 0;
  for (std::string line; std::getline(log, line);) ++lines;
  EXPECT_EQ(lines, 4);  // a header and three steps
  const auto result = runs().run(
      "analyze", "--set checkpoint={}/whole.safetensors --set output={}/trained_analysis");
  EXPECT_EQ(result.code, 0) << result.output;
}

TEST_F(TrainCli, ARepeatedRunGivesTheSameBits) {
  ASSERT_EQ(train("repeated").code, 0);
  EXPECT_TRUE(weights("repeated") == undisturbed());
  ASSERT_EQ(train("seeded", "--set training.seed=5").code, 0);
  EXPECT_FALSE(weights("seeded") == undisturbed());
}

// As if the machine had gone down after the first step.
TEST_F(TrainCli, AStoppedRunGoesOnToTheSameBits) {
  undisturbed();
  const auto all = checkpoints("whole");
  ASSERT_EQ(all.size(), 3u);
  fs::create_directories(runs().file("resumed"));
  fs::copy(all[0], runs().file("resumed") / fs::relative(all[0], runs().file("whole")));
  const auto result = train("resumed");
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_TRUE(weights("resumed") == undisturbed());
}

TEST_F(TrainCli, ACorruptCheckpointIsPassedOver) {
  undisturbed();
  fs::copy(runs().file("whole"), runs().file("damaged"), fs::copy_options::recursive);
  fs::resize_file(checkpoints("damaged").back(), 1000);
  const auto result = train("damaged");
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("warn"));
  EXPECT_TRUE(weights("damaged") == undisturbed());
}

// SIGTERM, as a batch system sends it: the run saves, says so, and goes on when called again.
TEST_F(TrainCli, ATerminatedRunGoesOnToTheSameBits) {
  const std::string steps = "--set training.steps=250 --set training.checkpoints.every=250 ";
  ASSERT_EQ(train("long", steps).code, 0);
  const auto log = runs().file("terminated/training.csv").string();
  const auto stopped =
      train("terminated",
            steps + fmt::format("2>&1 & pid=$!; while kill -0 $pid && "
                                "[ $(cat '{}' 2>/dev/null | wc -l) -lt 5 ]; do sleep 0.02; done; "
                                "kill -TERM $pid; wait $pid",
                                log));
  EXPECT_EQ(stopped.code, 0) << stopped.output;
  ASSERT_THAT(stopped.output, HasSubstr("Stopped after step"));
  EXPECT_FALSE(fs::exists(runs().file("terminated.safetensors")));
  ASSERT_EQ(train("terminated", steps).code, 0);
  EXPECT_TRUE(weights("terminated") == weights("long"));
}

TEST_F(TrainCli, ADryRunWritesNothing) {
  const auto result = train("dry", "--dry-run");
  EXPECT_EQ(result.code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("valid"));
  EXPECT_FALSE(fs::exists(runs().file("dry")));
  EXPECT_FALSE(fs::exists(runs().file("dry.safetensors")));
}

TEST_F(TrainCli, DivergenceStopsTheRun) {
  const auto result = train("diverged",
                            "--set training.optimizer.learning_rate=1e30 --set training.steps=20 "
                            "--set training.gradient_clip=0");
  EXPECT_EQ(result.code, 6) << result.output;
  EXPECT_FALSE(fs::exists(runs().file("diverged.safetensors")));
}

}  // namespace
}  // namespace halcyon
