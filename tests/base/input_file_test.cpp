// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/input_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <span>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

template <class F>
std::string refusal(F&& f) {
  try {
    f();
    return "";
  } catch (const Error& e) {
    return (e.kind() == ErrorKind::input ? "" : "another kind: ") + std::string(e.what());
  }
}

// Over the content in place, as cp does; a new file would be another one.
void overwrite(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  fs::last_write_time(path, fs::last_write_time(path) + std::chrono::seconds(1));
}

std::string part(const InputFile& file, std::uint64_t offset, std::size_t size) {
  std::string bytes(size, '?');
  file.read(offset, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

TEST(InputFile, ReadsAnyPart) {
  const test::TemporaryFolder folder;
  std::ofstream(folder / "f") << "0123456789";
  const InputFile file(folder / "f");
  EXPECT_EQ(file.size(), 10u);
  EXPECT_EQ(part(file, 0, 10), "0123456789");
  EXPECT_EQ(part(file, 7, 3), "789");
  EXPECT_EQ(part(file, 10, 0), "");
  const auto bytes = read_bytes(folder / "f");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), "0123456789");
  EXPECT_THAT(refusal([&] { read_bytes(folder / "f", 9); }), HasSubstr("at most 9 bytes, got 10"));
}

TEST(InputFile, AFileThatChangesIsAnError) {
  const test::TemporaryFolder folder;
  const std::pair<const char*, const char*> cases[] = {
      {"short", "was cut"}, {"9876543210", "was changed"}, {"0123456789 and more", "was changed"}};
  for (const auto& [content, reason] : cases) {
    std::ofstream(folder / "f") << "0123456789";
    const InputFile file(folder / "f");
    EXPECT_EQ(part(file, 0, 4), "0123");
    overwrite(folder / "f", content);
    EXPECT_THAT(refusal([&] { part(file, 2, 8); }),
                AllOf(HasSubstr(reason), HasSubstr((folder / "f").string())));
    EXPECT_THAT(refusal([&] { file.check_unchanged(); }), HasSubstr("was changed"));
  }
}

TEST(InputFile, AFileThatIsReplacedOrRemovedIsReadAsItWas) {
  const test::TemporaryFolder folder;
  write_text(folder / "f", "the old");
  const InputFile file(folder / "f");
  EXPECT_TRUE(file.is_at_its_path());
  write_text(folder / "f", "another");
  EXPECT_EQ(part(file, 0, 7), "the old");
  EXPECT_FALSE(file.is_at_its_path());
  fs::remove(folder / "f");
  EXPECT_EQ(part(file, 4, 3), "old");
}

// Nothing waits for a pipe's writer.
TEST(InputFile, RefusesWhatIsNoRegularFile) {
  const test::TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  fs::create_symlink("circle", folder / "circle");
  fs::create_symlink("none", folder / "dangling");
  const std::pair<fs::path, const char*> cases[] = {
      {folder.path(), "expected a regular file, got a folder"},
      {folder / "pipe", "expected a regular file, got a named pipe"},
      {"/dev/null", "expected a regular file, got a device"},
      {folder / "circle", "Too many levels of symbolic links"},
      {folder / "dangling", "No such file"},
      {folder / "none", "No such file"}};
  for (const auto& [path, reason] : cases) {
    EXPECT_THAT(refusal([&, &p = path] { InputFile{p}; }),
                AllOf(HasSubstr(reason), HasSubstr(path.string())));
    EXPECT_THAT(refusal([&, &p = path] { read_text(p); }), HasSubstr(reason));
    EXPECT_THAT(refusal([&, &p = path] { sha256_of_file(p); }), HasSubstr(reason));
  }
  std::ofstream(folder / "f") << "text";
  fs::create_symlink("f", folder / "link");
  EXPECT_EQ(read_text(folder / "link"), "text");
  EXPECT_THAT(refusal([&] { InputFile{folder / "f"}; }), IsEmpty());
}

}  // namespace
}  // namespace halcyon
