// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "halcyon/base/file_lock.h"

namespace halcyon::training {

// Keeps other processes that lock the same folder out while it lives; the system lets go of it when
// the process ends, however it ends.
class FolderLock {
 public:
  // Makes the folder if need be. Throws Error(output) when it cannot be written into, and
  // Error(configuration) when it is locked already.
  explicit FolderLock(const std::filesystem::path& folder);

 private:
  FileLock lock_;
};

}  // namespace halcyon::training
