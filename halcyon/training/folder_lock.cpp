// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/folder_lock.h"

#include "halcyon/base/error.h"

namespace halcyon::training {
namespace {

std::filesystem::path made(const std::filesystem::path& folder) {
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);
  return folder;
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& folder)
    : lock_(made(folder) / "training.lock") {
  HALCYON_CHECK_KIND(lock_.is_open(), output, "train", "cannot write into the folder {}",
                     folder.string());
  HALCYON_CHECK_KIND(lock_.try_lock(), configuration, "train", "another process trains in {}",
                     folder.string());
}

}  // namespace halcyon::training
