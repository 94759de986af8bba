// SPDX-License-Identifier: Apache-2.0
// halcyon train and analyze by several processes: under torchrun, under mpirun, and started by
// hand.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "halcyon/base/csv.h"
#include "halcyon/base/files.h"
#include "halcyon/state/read_fields.h"
#include "tests/apps/small_runs.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const test::SmallRuns& runs() {
  static const test::SmallRuns small;
  return small;
}

std::string torchrun(int ranks, const char* more = "") {
  return fmt::format("OMP_NUM_THREADS=1 '{}' --no-python --standalone --nproc-per-node {} {} --",
                     (test::source_dir() / ".venv/bin/torchrun").string(), ranks, more);
}

std::string training(const std::string& name, const std::string& more = "") {
  return fmt::format(
      "--set training.accumulate=4 --set training.output={{}}/{0} --set "
      "weights={{}}/{0}.safetensors {1}",
      name, more);
}

std::vector<double> column(const std::string& name, const char* title) {
  const auto table = read_csv(runs().file(name + "/training.csv"));
  std::vector<double> values;
  for (size_t row = 0; row < table.rows.size(); ++row) {
    values.push_back(table.number(row, table.column(title)));
  }
  return values;
}

// The losses and gradients of one process, to the rounding of sums in another order.
void expect_like_one_process(const std::string& name) {
  static const bool done = [] {
    const auto result = runs().run("train", training("one"), "OMP_NUM_THREADS=1");
    EXPECT_EQ(result.code, 0) << result.output;
    return true;
  }();
  ASSERT_TRUE(done);
  EXPECT_EQ(column(name, "samples"), column("one", "samples"));
  for (const auto* title : {"loss", "gradient_norm"}) {
    const auto ours = column(name, title), theirs = column("one", title);
    ASSERT_EQ(ours.size(), 3u);
    for (size_t i = 0; i < ours.size(); ++i) {
      EXPECT_NEAR(ours[i], theirs[i], 2e-5 * theirs[i]) << title << " of step " << i + 1;
    }
  }
}

// Ranks of one run started by hand, each with its log rank-N.log; script: more lines, with the
// processes' numbers in $p0, $p1 ... Then the exit codes, one a line.
std::string by_hand(const std::string& name, int ranks, const std::string& arguments,
                    const std::string& script, const std::string& last_rank_more = "",
                    int timeout_seconds = 30) {
  std::string text = "cd '" + runs().folder().string() + "'\n";
  const auto program = (test::binary_dir() / "bin/halcyon").string();
  for (int rank = 0; rank < ranks; ++rank) {
    text += fmt::format(
        "RANK={0} WORLD_SIZE={1} LOCAL_RANK={0} OMP_NUM_THREADS=1 "
        "HALCYON_STORE_FILE=$PWD/{2}.store "
        "HALCYON_TIMEOUT={6} '{3}' train train.yaml {4} {5} > {2}-{0}.log 2>&1 "
        "&\np{0}=$!\n",
        rank, ranks, name, program, arguments, rank + 1 == ranks ? last_rank_more : "",
        timeout_seconds);
  }
  text += script + "\n";
  for (int rank = 0; rank < ranks; ++rank) text += fmt::format("wait $p{}; echo $?\n", rank);
  for (auto at = text.find("{}"); at != std::string::npos; at = text.find("{}"))
    text.replace(at, 2, runs().folder().string());
  write_text(runs().file(name + ".sh"), text);
  FILE* const pipe =
      ::popen(("bash '" + runs().file(name + ".sh").string() + "' 2>/dev/null").c_str(), "r");
  std::string codes;
  char buffer[256];
  while (std::fgets(buffer, sizeof buffer, pipe)) codes += buffer;
  ::pclose(pipe);
  return codes;
}

std::string log(const std::string& name, int rank) {
  return read_text(runs().file(fmt::format("{}-{}.log", name, rank)));
}

TEST(RanksCli, TorchrunTrainsAsOneProcess) {
  for (const int ranks : {2, 3}) {
    const auto name = fmt::format("torchrun{}", ranks);
    const auto result = runs().run("train", training(name), torchrun(ranks));
    ASSERT_EQ(result.code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr(fmt::format("{} ranks, started by torchrun", ranks)));
    expect_like_one_process(name);
  }
}

// The processes of the first attempt met in the store of the second.
TEST(RanksCli, TorchrunStartsThemAgain) {
  const auto folder = runs().folder().string();
  const auto program = (test::binary_dir() / "bin/halcyon").string();
  write_text(runs().file("again.sh"),
             fmt::format("'{}' train '{}/train.yaml' --set training.accumulate=4 "
                         "--set training.output='{}/again' --set weights='{}/again.safetensors' && "
                         "[ $TORCHELASTIC_RESTART_COUNT = 1 ]\n",
                         program, folder, folder, folder));
  const auto command = fmt::format("{} bash '{}/again.sh' >'{}/again.log' 2>&1",
                                   torchrun(2, "--max-restarts 1"), folder, folder);
  EXPECT_EQ(std::system(command.c_str()), 0) << read_text(runs().file("again.log"));
}

TEST(RanksCli, MpirunTrainsAsOneProcess) {
  if (test::halcyon_says("--version", "2>&1", "command -v mpirun >/dev/null && ").code != 0) {
    GTEST_SKIP() << "no mpirun on this machine";
  }
  const auto result =
      runs().run("train", training("mpirun"),
                 "OMP_NUM_THREADS=1 mpirun --allow-run-as-root --oversubscribe -n 2");
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("2 ranks, started by mpirun"));
  expect_like_one_process("mpirun");
}

TEST(RanksCli, MomentsSpreadOverRanksGiveTheSameBits) {
  const auto sharded = "--set training.optimizer.sharded=true";
  ASSERT_EQ(runs().run("train", training("replicated"), torchrun(2)).code, 0);
  ASSERT_EQ(runs().run("train", training("sharded", sharded), torchrun(2)).code, 0);
  EXPECT_TRUE(read_text(runs().file("sharded.safetensors")) ==
              read_text(runs().file("replicated.safetensors")));
}

// As if the machine had gone down after the first step, and another number of ranks were at hand.
TEST(RanksCli, AnotherNumberOfRanksGoesOn) {
  ASSERT_EQ(runs().run("train", training("whole"), torchrun(2)).code, 0);
  for (const auto* more : {"", "--set training.optimizer.sharded=true"}) {
    const std::string name = *more ? "resumed-sharded" : "resumed";
    fs::create_directories(runs().file(name));
    const std::string first = "step-000000001.safetensors";
    fs::copy(runs().file("whole") / first, runs().file(name) / first);
    fs::copy(runs().file("whole/training.csv"), runs().file(name + "/training.csv"));
    const auto result = runs().run("train", training(name, more), torchrun(3));
    ASSERT_EQ(result.code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr("resumed after step 1"));
    expect_like_one_process(name);
  }
}

// Every survivor ends with the exit code of a lost peer and says whom it lost; what was saved
// stands, and fewer ranks go on from it.
TEST(RanksCli, AKilledRankEndsTheRunWhichResumes) {
  const std::string steps = "--set training.steps=2000 --set training.checkpoints.every=2 ";
  const auto codes = by_hand("killed", 3, training("killed", steps),
                             "until [ -e killed/step-000000004.safetensors ]; do sleep 0.1; done\n"
                             "kill -KILL $p1");
  EXPECT_EQ(codes, "7\n137\n7\n");
  for (const int rank : {0, 2}) {
    EXPECT_THAT(log("killed", rank), AllOf(HasSubstr(fmt::format("rank {}: no answer from", rank)),
                                           HasSubstr("error: [")));
  }
  const auto saved = column("killed", "loss").size();
  ASSERT_GE(saved, 4u);
  const auto result = runs().run(
      "train", training("killed", fmt::format("--set training.steps={}", saved + 2)), torchrun(2));
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("resumed after step"));
}

TEST(RanksCli, ASilentRankIsNamedWithinTheTimeout) {
  const std::string steps = "--set training.steps=2000 --set training.checkpoints.every=2 ";
  const auto codes = by_hand("silent", 2, training("silent", steps),
                             "until [ -e silent/step-000000002.safetensors ]; do sleep 0.1; done\n"
                             "kill -STOP $p1; (sleep 12; kill -KILL $p1) &",
                             "", 6);
  EXPECT_EQ(codes, "7\n137\n");
  EXPECT_THAT(log("silent", 0), HasSubstr("no answer from rank 1 after 6."));
}

TEST(RanksCli, OtherConfigurationsAreFoundAtTheStart) {
  const auto codes = by_hand("mismatch", 2, training("mismatch"), "true", "--set training.seed=7");
  EXPECT_EQ(codes, "2\n2\n");
  for (const int rank : {0, 1}) {
    EXPECT_THAT(log("mismatch", rank), HasSubstr("expected the same configuration on every rank"));
  }
}

TEST(RanksCli, MoreRanksThanMicroBatchesAreRefused) {
  const auto codes = by_hand("few", 3, training("few", "--set training.accumulate=2"), "true");
  EXPECT_EQ(codes, "3\n3\n3\n");
  EXPECT_THAT(log("few", 2),
              HasSubstr("expected at least one micro-batch a step for each of 3 ranks"));
}

TEST(RanksCli, AStopThatOneRankIsAskedForIsThatOfAll) {
  const std::string steps = "--set training.steps=2000 --set training.checkpoints.every=500 ";
  const auto codes = by_hand("stopped", 2, training("stopped", steps),
                             "until [ $(cat stopped/training.csv | wc -l) -ge 4 ]; do sleep 0.05; "
                             "done; kill -TERM $p1");
  EXPECT_EQ(codes, "0\n0\n");
  EXPECT_THAT(log("stopped", 0), HasSubstr("Stopped after step"));
}

TEST(RanksCli, RanksShareTheTimesOfAnAnalysis) {
  ASSERT_EQ(runs().run("analyze", "--set output={}/analysis-one", "OMP_NUM_THREADS=1").code, 0);
  const auto result = runs().run("analyze", "--set output={}/analysis-two", torchrun(2));
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("2 analyses"));
  for (const auto* file : {"analysis_latlon.nc", "analysis_healpix.nc"}) {
    const auto fields = [&](const std::string& folder) {
      return state::read_fields(runs().file(folder + "/" + file)).data;
    };
    const auto one = fields("analysis-one"), two = fields("analysis-two");
    EXPECT_EQ(one.size(0), 2);
    EXPECT_TRUE(at::allclose(two, one, 1e-6, 1e-4, /*equal_nan=*/true)) << file;
  }
}

}  // namespace
}  // namespace halcyon
