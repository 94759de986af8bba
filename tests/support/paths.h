// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace halcyon::test {

std::filesystem::path source_dir();
std::filesystem::path binary_dir();
// ../shared of the checkout: goldens and real data. May be absent; ask has_shared() first.
std::filesystem::path shared_dir();
bool has_shared();

// A fresh folder for this test, removed when the object goes.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace halcyon::test

// Skips the running test, with the reason, where the goldens are not at hand.
#define HALCYON_NEEDS_SHARED()        \
  if (!::halcyon::test::has_shared()) \
  GTEST_SKIP() << "no goldens or data at " << ::halcyon::test::shared_dir()
