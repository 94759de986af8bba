// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "halcyon/base/files.h"
#include "halcyon/base/safetensors.h"
#include "tests/apps/program.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using testing::AllOf;
using testing::HasSubstr;

using test::halcyon_says;

TEST(Cli, AnswersHelpAndVersionEverywhere) {
  for (const char* command : {"", "checkpoint", "checkpoint inspect", "checkpoint convert"}) {
    const auto result = halcyon_says(std::string(command) + " --help");
    EXPECT_EQ(result.code, 0) << command;
    EXPECT_THAT(result.output, HasSubstr("Usage:"));
  }
  EXPECT_THAT(halcyon_says("--help").output,
              AllOf(HasSubstr("checkpoint"), HasSubstr("Exit codes")));
  EXPECT_THAT(halcyon_says("--version").output, testing::ContainsRegex("^halcyon [0-9]+\\.[0-9]+"));
}

TEST(Cli, ExitCodesTellWhatWentWrong) {
  const test::TemporaryFolder folder;
  write_text(folder / "bad.mdlus", "no checkpoint");
  const auto bad = (folder / "bad.mdlus").string();
  const std::tuple<std::string, int, const char*> cases[] = {
      {"", 2, "subcommand is required"},
      {"nonsense", 2, "nonsense"},
      {"checkpoint", 2, "subcommand is required"},
      {"checkpoint inspect", 2, "file is required"},
      {"checkpoint inspect --nonsense x", 2, "--nonsense"},
      {"--log-level loud checkpoint inspect " + bad, 2, "--log-level"},
      {"checkpoint inspect " + bad, 4, "neither a zip nor a tar"},
      {"checkpoint inspect /no/such.mdlus", 4, "/no/such.mdlus"},
      {"checkpoint convert " + bad + " out.mdlus", 2, "ends in .safetensors"},
      {"checkpoint convert " + bad + " out.safetensors", 4, "neither a zip nor a tar"},
  };
  for (const auto& [arguments, code, reason] : cases) {
    const auto result = halcyon_says(arguments);
    EXPECT_EQ(result.code, code) << arguments << "\n" << result.output;
    EXPECT_THAT(result.output, AllOf(testing::StartsWith("halcyon: error: "), HasSubstr(reason)));
  }
}

TEST(Cli, InspectsAndConvertsACheckpoint) {
  HALCYON_NEEDS_SHARED();
  const test::TemporaryFolder folder;
  const auto golden = (test::shared_dir() / "golden/healda/healda_tiny.mdlus").string();
  const auto out = (folder / "tiny.safetensors").string(),
             again = (folder / "again.safetensors").string();

  const auto text = halcyon_says("checkpoint inspect " + golden);
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.output, AllOf(HasSubstr("mdlus (zip)"), HasSubstr("hidden_size"),
                                 HasSubstr(sha256_of_file(golden)), HasSubstr("512,")));

  EXPECT_EQ(halcyon_says("checkpoint convert " + golden + " " + out).code, 0);
  EXPECT_EQ(halcyon_says("checkpoint convert " + out + " " + again).code, 0);
  EXPECT_EQ(read_text(out), read_text(again));

  const auto facts = [](const std::string& file) {
    return nlohmann::json::parse(halcyon_says("checkpoint inspect --json " + file, "").output);
  };
  const auto before = facts(golden), after = facts(out);
  EXPECT_EQ(before["parameters"], after["parameters"]);
  EXPECT_EQ(after["container"], "safetensors");
  EXPECT_EQ(after["configuration"]["out_channels"], 5);
  int64_t elements = 0;
  for (const auto& [name, tensor] : read_safetensors(out).tensors) elements += tensor.numel();
  EXPECT_EQ(before["bytes"]["Float"], 4 * elements);
  EXPECT_EQ(before["parameters"], elements - 12);  // map_noise.freqs is a buffer
}

TEST(Cli, InspectTellsAndThenRefusesAnIncompleteCheckpoint) {
  const test::TemporaryFolder folder;
  const auto path = (folder / "x.safetensors").string();
  write_safetensors(path, {{{"a", at::ones({3})}},
                           {{"halcyon_format_version", "1"},
                            {"halcyon_class", "HealDA"},
                            {"halcyon_config", R"({"num_layers": 1, "level_model": 0})"}}});
  const auto result = halcyon_says("checkpoint inspect " + path);
  EXPECT_EQ(result.code, 4);
  EXPECT_THAT(result.output, AllOf(HasSubstr("num_layers"), HasSubstr("halcyon: error: "),
                                   HasSubstr("but holds 3 numbers")));
}

TEST(Cli, AClosedPipeIsNoErrorAndAFullDiskIs) {
  HALCYON_NEEDS_SHARED();
  const auto golden = (test::shared_dir() / "golden/healda/healda_tiny.mdlus").string();
  // sh has no pipefail: the status travels in a file
  const test::TemporaryFolder folder;
  const auto status = folder / "status";
  const auto program = (test::binary_dir() / "bin/halcyon").string();
  const auto command =
      fmt::format("{{ sleep 0.2; '{}' checkpoint inspect {}; echo $? >{}; }} | true", program,
                  golden, status.string());
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(read_text(status), "0\n");
  const auto full = halcyon_says("checkpoint inspect " + golden, "2>&1 >/dev/full");
  EXPECT_EQ(full.code, 5) << full.output;
  EXPECT_THAT(full.output, HasSubstr("halcyon: error: cannot write to standard output"));
}

}  // namespace
}  // namespace halcyon
