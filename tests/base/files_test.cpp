// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/files.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>

#include "halcyon/base/error.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/safetensors.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

template <class F>
std::string refusal(F&& f) {
  try {
    f();
    return "";
  } catch (const Error& e) {
    return (e.kind() == ErrorKind::output ? "" : "another kind: ") + std::string(e.what());
  }
}

mode_t mode_of(const fs::path& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return status.st_mode & 07777;
}

int64_t files_in(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), {});
}

TEST(Files, FailedWriteLeavesTheOldFile) {
  const test::TemporaryFolder folder;
  write_text(folder / "a.txt", "old");
  EXPECT_THROW(write_atomically(folder / "a.txt",
                                [](const auto&) { throw std::runtime_error("disk full"); }),
               Error);
  EXPECT_EQ(read_text(folder / "a.txt"), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_THROW(write_text(folder / "no/such/folder.txt", "x"), Error);
}

TEST(Files, LinksStayLinks) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder / "disk");
  fs::create_directories(folder / "run");
  write_text(folder / "disk/old", "old");
  fs::create_symlink("../disk/old", folder / "run/relative");
  fs::create_symlink(folder / "disk/old", folder / "run/absolute");
  fs::create_symlink("relative", folder / "run/chain");
  fs::create_directory_symlink("disk", folder / "folder");
  for (const char* name : {"run/relative", "run/absolute", "run/chain", "folder/old"}) {
    write_text(folder / name, name);
    EXPECT_EQ(read_text(folder / "disk/old"), name);
    EXPECT_FALSE(fs::is_symlink(folder / "disk/old"));
    EXPECT_EQ(read_text(folder / name), name);
  }
  for (const char* name : {"relative", "absolute", "chain"})
    EXPECT_TRUE(fs::is_symlink(folder / "run" / name)) << name;
  EXPECT_TRUE(fs::is_symlink(folder / "folder"));
  EXPECT_EQ(files_in(folder / "disk"), 1);
  EXPECT_EQ(files_in(folder / "run"), 3);
}

TEST(Files, EveryWriterFollowsLinks) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder / "disk");
  const auto through_link = [&](const char* name, const std::function<void(const fs::path&)>& f) {
    fs::create_symlink(fs::path("disk") / name, folder / name);  // dangling at first
    for (int i = 0; i < 2; ++i) {
      f(folder / name);
      EXPECT_TRUE(fs::is_symlink(folder / name)) << name;
      EXPECT_TRUE(fs::is_regular_file(folder / "disk" / name)) << name;
    }
  };
  through_link("a.txt", [](const auto& path) { write_text(path, "text"); });
  through_link("a.safetensors", [](const auto& path) {
    write_safetensors(path, {{{"a", at::ones({2})}}, {}});
  });
  through_link("a.nc", [](const auto& path) {
    write_netcdf(path, [](NetcdfWriter& writer) { writer.dimension("x", 2); });
  });
  EXPECT_EQ(files_in(folder / "disk"), 3);
}

TEST(Files, LinksThatLeadNowhere) {
  const test::TemporaryFolder folder;
  fs::create_symlink("circle", folder / "circle");
  fs::create_symlink("missing/file", folder / "unmounted");
  EXPECT_THAT(refusal([&] { write_text(folder / "circle", "x"); }), HasSubstr("in a circle"));
  for (const auto& write : {std::function([&] { write_text(folder / "unmounted", "x"); }),
                            std::function([&] { prepare_folder_of(folder / "unmounted"); })})
    EXPECT_THAT(refusal(write), HasSubstr("whose folder does not exist"));
  EXPECT_EQ(files_in(folder.path()), 2);
}

TEST(Files, FoldersAndDevicesAreNotReplaced) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder / "folder/keep");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  fs::create_symlink("/dev/null", folder / "null");
  for (const char* name : {"folder", "pipe", "null"})
    EXPECT_THAT(refusal([&] { write_text(folder / name, "x"); }),
                HasSubstr("expected a regular file or none"));
  EXPECT_TRUE(fs::is_directory(folder / "folder/keep"));
  EXPECT_TRUE(fs::is_fifo(folder / "pipe"));
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(Files, PermissionsOfTheOldFileAreKept) {
  const test::TemporaryFolder folder;
  const mode_t before = ::umask(027);
  write_text(folder / "new", "x");
  EXPECT_EQ(mode_of(folder / "new"), 0640u);
  for (const mode_t mode : {0600u, 0664u, 0444u}) {
    ASSERT_EQ(::chmod((folder / "new").c_str(), mode), 0);
    write_text(folder / "new", "y");
    EXPECT_EQ(mode_of(folder / "new"), mode);
  }
  ::umask(before);
}

// As on a full disk: the old file is whole, and nothing is left beside it.
TEST(Files, AFileThatOutgrowsItsLimit) {
  const test::TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  write_safetensors(path, {{{"a", at::ones({4})}}, {}});
  const auto before = read_text(path);
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small{4096, limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto tensors = refusal([&] {
    write_safetensors(path, {{{"a", at::ones({100'000})}}, {}});
  });
  const auto text = refusal([&] { write_text(path, std::string(100'000, 'x')); });
  const auto netcdf = refusal([&] {
    write_netcdf(path, [](NetcdfWriter& writer) {
      writer.dimension("x", 100'000);
      writer.variable("v", at::kDouble, {"x"});
      writer.write("v", at::rand({100'000}, at::kDouble));
    });
  });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  for (const auto& message : {tensors, text, netcdf})
    EXPECT_THAT(message, HasSubstr("x.safetensors"));
  EXPECT_EQ(read_text(path), before);
  EXPECT_EQ(files_in(folder.path()), 1);
}

TEST(Files, Sha256OfKnownText) {
  const test::TemporaryFolder folder;
  write_text(folder / "abc", "abc");
  EXPECT_EQ(sha256_of_file(folder / "abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  write_text(folder / "large", std::string(3'000'000, 'a'));
  EXPECT_EQ(sha256_of_file(folder / "large"),
            "2a152c894398719c0570f83fac34ac03a0f6e8e474b995c2403aa5434f7b9dd4");
  write_text(folder / "empty", "");
  EXPECT_EQ(sha256_of_file(folder / "empty"),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_THROW(sha256_of_file(folder / "none"), Error);
  EXPECT_THROW(sha256_of_file(folder.path()), Error);
}

}  // namespace
}  // namespace halcyon
