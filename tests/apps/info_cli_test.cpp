// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/apps/program.h"

namespace halcyon {
namespace {

using test::halcyon_says;
using testing::AllOf;
using testing::HasSubstr;

TEST(InfoCli, TellsWhatIsInstalled) {
  const auto text = halcyon_says("info");
  EXPECT_EQ(text.code, 0);
  for (const char* what : {"halcyon", "processor", "threads", "cuda", "owm_csv", "madis"})
    EXPECT_THAT(text.output, HasSubstr(what));
}

TEST(InfoCli, AsJson) {
  const auto facts = nlohmann::json::parse(halcyon_says("info --json", "").output);
  const auto version = "halcyon " + facts["halcyon"].get<std::string>() + "\n";
  EXPECT_EQ(halcyon_says("--version").output, version);
  EXPECT_GE(facts["threads"].get<int>(), 1);
  EXPECT_TRUE(facts["libraries"].is_object());
  EXPECT_TRUE(facts["observation formats"].contains("halcyon"));
  // what a user limits is what is reported
  const auto one = halcyon_says("info --json", "", "OMP_NUM_THREADS=1");
  EXPECT_EQ(nlohmann::json::parse(one.output)["threads"], 1);
}

TEST(InfoCli, AMisspeltSubcommandIsCorrected) {
  const std::pair<const char*, const char*> names[] = {
      {"anlyze", "analyze"},   {"analyse", "analyze"}, {"trian", "train"},
      {"evalute", "evaluate"}, {"inof", "info"},       {"plt", "plot"}};
  for (const auto& [wrong, right] : names) {
    const auto result = halcyon_says(wrong);
    EXPECT_EQ(result.code, 2);
    EXPECT_THAT(result.output,
                AllOf(HasSubstr(wrong), HasSubstr(std::string("did you mean '") + right + "'?")));
  }
  const auto far = halcyon_says("xyzzy");
  EXPECT_EQ(far.code, 2);
  EXPECT_THAT(far.output, HasSubstr("xyzzy"));
}

TEST(InfoCli, EverySubcommandHelps) {
  for (const char* command : {"analyze", "train", "evaluate", "info", "plot", "obs"}) {
    const auto result = halcyon_says(std::string(command) + " --help");
    EXPECT_EQ(result.code, 0) << command;
    EXPECT_THAT(result.output, HasSubstr("Usage:"));
    const auto wrong = halcyon_says(std::string(command) + " --nonsense");
    EXPECT_EQ(wrong.code, 2) << command;
  }
}

}  // namespace
}  // namespace halcyon
