// SPDX-License-Identifier: Apache-2.0
// Where a product cannot be written: a clear error, and what was there before is still there.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "halcyon/base/files.h"
#include "tests/apps/small_runs.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// Files may hold so many blocks of 512 bytes; writing on fails as on a full disk.
std::string disk_of(int blocks) {
  return fmt::format("ulimit -f {};", blocks);
}

class FullDiskCli : public testing::Test {
 protected:
  static const test::SmallRuns& runs() {
    static const test::SmallRuns small;
    return small;
  }
  static std::map<std::string, std::string> files_in(const std::string& folder) {
    std::map<std::string, std::string> content;
    for (const auto& entry : fs::recursive_directory_iterator(runs().file(folder)))
      if (entry.is_regular_file())
        content[entry.path().filename().string()] = read_text(entry.path());
    return content;
  }
};

TEST_F(FullDiskCli, AnalyzeLeavesEarlierProductsIntact) {
  ASSERT_EQ(runs().run("analyze").code, 0);
  const auto before = files_in("analysis");
  ASSERT_EQ(before.size(), 4u);
  const auto full = runs().run("analyze", "--set times.start=2014-02-01T06", disk_of(2));
  EXPECT_EQ(full.code, 5) << full.output;
  EXPECT_THAT(full.output, AllOf(HasSubstr("halcyon: error: "), HasSubstr("analysis_latlon.nc")));
  EXPECT_EQ(files_in("analysis"), before);
}

TEST_F(FullDiskCli, AnalyzeIntoWhatIsNoFolder) {
  const auto cities = read_text(runs().file("city_t2m.csv"));
  for (const char* output : {"{}/city_t2m.csv", "{}/city_t2m.csv/below", "/dev/full"}) {
    const auto result = runs().run("analyze", std::string("--set output=") + output);
    EXPECT_EQ(result.code, 5) << result.output;
    EXPECT_THAT(result.output, HasSubstr("halcyon: error: "));
  }
  EXPECT_EQ(read_text(runs().file("city_t2m.csv")), cities);
}

TEST_F(FullDiskCli, AnalyzeOntoAFolderOfAProductsName) {
  fs::create_directories(runs().file("occupied/feedback.nc/keep"));
  const auto result = runs().run("analyze", "--set output={}/occupied");
  EXPECT_EQ(result.code, 5) << result.output;
  EXPECT_THAT(result.output, HasSubstr("feedback.nc"));
  EXPECT_TRUE(fs::exists(runs().file("occupied/feedback.nc/keep")));
  for (const auto& entry : fs::directory_iterator(runs().file("occupied")))
    EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
}

TEST_F(FullDiskCli, StandardOutputThatIsFull) {
  const auto result = test::halcyon_says("analyze " + runs().quoted("analyze.yaml") + " --dry-run",
                                         "2>&1 >/dev/full");
  EXPECT_EQ(result.code, 5) << result.output;
  EXPECT_THAT(result.output, HasSubstr("standard output"));
}

TEST_F(FullDiskCli, TrainTellsBeforeItTrains) {
  const auto blocked = runs().run("train", "--set weights={}/city_t2m.csv/w.safetensors");
  EXPECT_EQ(blocked.code, 5) << blocked.output;
  EXPECT_FALSE(fs::exists(runs().file("training")));
  const auto file = runs().run("train", "--set training.output={}/city_t2m.csv");
  EXPECT_EQ(file.code, 5) << file.output;
  EXPECT_FALSE(fs::exists(runs().file("trained.safetensors")));
}

TEST_F(FullDiskCli, TrainKeepsItsCheckpoints) {
  const std::string options = "--set training.output={}/disk --set weights={}/disk.safetensors ";
  ASSERT_EQ(runs().run("train", options + "--set training.steps=1").code, 0);
  const auto weights = read_text(runs().file("disk.safetensors"));
  const auto before = files_in("disk");
  const auto full = runs().run("train", options + "--set training.steps=3", disk_of(40));
  EXPECT_EQ(full.code, 5) << full.output;
  EXPECT_EQ(read_text(runs().file("disk.safetensors")), weights);
  const auto after = files_in("disk");
  for (const auto& [name, content] : before) {
    if (!name.ends_with(".safetensors")) continue;
    EXPECT_TRUE(after.at(name) == content) << name;
  }
  for (const auto& [name, content] : after) EXPECT_FALSE(name.ends_with(".tmp")) << name;
}

TEST_F(FullDiskCli, EvaluateTellsBeforeItScores) {
  const auto result = runs().run("evaluate", "--set output={}/city_t2m.csv/scores.json");
  EXPECT_EQ(result.code, 5) << result.output;
  EXPECT_THAT(result.output, testing::Not(HasSubstr("withheld")));  // not begun
}

}  // namespace
}  // namespace halcyon
