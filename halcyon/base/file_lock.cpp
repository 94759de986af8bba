// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace halcyon {

FileLock::FileLock(const std::filesystem::path& path)
    : file_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {}

FileLock::~FileLock() {
  if (is_open()) ::close(file_);
}

bool FileLock::try_lock() {
  return is_open() && ::flock(file_, LOCK_EX | LOCK_NB) == 0;
}

void FileLock::lock() {
  if (is_open()) ::flock(file_, LOCK_EX);
}

}  // namespace halcyon
