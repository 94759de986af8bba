// SPDX-License-Identifier: Apache-2.0
#include "tests/support/paths.h"

#include <cstdlib>

namespace halcyon::test {
namespace fs = std::filesystem;

fs::path source_dir() {
  return HALCYON_SOURCE_DIR;
}
fs::path binary_dir() {
  return HALCYON_BINARY_DIR;
}
fs::path shared_dir() {
  const char* from_environment = std::getenv("HALCYON_SHARED_DIR");
  return from_environment != nullptr ? fs::path(from_environment) : fs::path(HALCYON_SHARED_DIR);
}
bool has_shared() {
  return fs::exists(shared_dir() / "golden");
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "halcyon-test-XXXXXX").string();
  path_ = ::mkdtemp(name.data());
}
TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace halcyon::test
