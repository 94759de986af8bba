// SPDX-License-Identifier: Apache-2.0
// Kills a training process at any moment, starts it again, and asks for the bits of a run that was
// never disturbed.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "halcyon/base/files.h"
#include "halcyon/base/safetensors.h"
#include "halcyon/training/checkpoint.h"
#include "halcyon/training/random.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::training {
namespace {
namespace fs = std::filesystem;
using namespace std::chrono_literals;
using halcyon::test::TemporaryFolder;

pid_t start(const fs::path& folder) {
  std::string program = halcyon::test::binary_dir() / "tests/training/training_killed_child";
  std::string argument = folder.string();
  char* arguments[] = {program.data(), argument.data(), nullptr};
  pid_t child = -1;
  EXPECT_EQ(::posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments, environ), 0);
  return child;
}

// Waits for the end: the exit code, or minus the signal.
int wait_for(pid_t child) {
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int64_t rows(const fs::path& file) {
  std::ifstream in(file);
  int64_t n = 0;
  for (std::string row; std::getline(in, row);) ++n;
  return n;
}

// Is there a part of a checkpoint by this process (0: any)?
bool half_written_checkpoint(const fs::path& folder, pid_t child = 0) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    const std::string writer = child == 0 ? "." : fmt::format(".safetensors.{}-", child);
    if (name.starts_with("step-") && name.ends_with(".tmp") &&
        name.find(writer) != std::string::npos) {
      return true;
    }
  }
  return false;
}

std::vector<std::string> without_speed(const fs::path& file) {
  std::ifstream in(file);
  std::vector<std::string> out;
  for (std::string row; std::getline(in, row);) out.push_back(row.substr(0, row.rfind(',')));
  return out;
}

TEST(Resume, ARunKilledAtAnyMomentEndsInTheSameBits) {
  const TemporaryFolder whole, killed;
  ::setenv("OMP_WAIT_POLICY", "passive", 1);  // threads that spin are slow on a busy machine
  ASSERT_EQ(wait_for(start(whole.path())), 0);

  Random random(::getpid());  // other moments each time
  int kills = 0, in_checkpoint = 0;
  int code = -SIGKILL;
  for (; code == -SIGKILL && kills < 200; ++kills) {
    // Every other time in the midst of a checkpoint, else some steps later and a little more.
    const int64_t begun = rows(killed / "training.csv");
    const int64_t target = begun + random.below(30);
    const bool await_checkpoint = kills % 2 == 0;
    const auto delay = std::chrono::microseconds(random.below(8000));
    const pid_t child = start(killed.path());
    for (;;) {
      const bool due = await_checkpoint ? half_written_checkpoint(killed.path(), child)
                                        : rows(killed / "training.csv") > target;
      if (due) break;
      siginfo_t info{};
      if (::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
          info.si_pid == child) {
        break;
      }
      std::this_thread::sleep_for(200us);
    }
    if (!await_checkpoint) std::this_thread::sleep_for(delay);
    ::kill(child, SIGKILL);
    code = wait_for(child);
    if (code == -SIGKILL && half_written_checkpoint(killed.path(), child)) ++in_checkpoint;
  }
  ASSERT_EQ(code, 0);
  RecordProperty("kills", kills - 1);
  RecordProperty("kills_in_checkpoint", in_checkpoint);
  EXPECT_GE(kills, 5);
  EXPECT_GE(in_checkpoint, 1);

  EXPECT_EQ(without_speed(killed / "training.csv"), without_speed(whole / "training.csv"));
  EXPECT_EQ(rows(whole / "training.csv"), 121);
  EXPECT_EQ(read_text(killed / "validation.csv"), read_text(whole / "validation.csv"));
  const auto a = read_safetensors(whole / "step-000000120.safetensors");
  const auto b = read_safetensors(killed / "step-000000120.safetensors");
  EXPECT_EQ(a.metadata, b.metadata);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, tensor] : a.tensors) {
    EXPECT_TRUE(halcyon::test::identical(b.at(name), tensor)) << name;
  }
  EXPECT_FALSE(half_written_checkpoint(killed.path()));
}

}  // namespace
}  // namespace halcyon::training
