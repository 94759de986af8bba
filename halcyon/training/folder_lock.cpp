// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "halcyon/base/error.h"

namespace halcyon::training {

FolderLock::FolderLock(const std::filesystem::path& folder) {
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);
  const std::string path = folder / "training.lock";
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  HALCYON_CHECK_KIND(file_ >= 0, output, "train", "cannot write into the folder {}",
                     folder.string());
  if (::flock(file_, LOCK_EX | LOCK_NB) == 0) return;
  ::close(file_);
  throw_error(ErrorKind::configuration, "train",
              fmt::format("another process trains in {}", folder.string()));
}

FolderLock::~FolderLock() {
  ::close(file_);
}

}  // namespace halcyon::training
