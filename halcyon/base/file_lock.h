// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace halcyon {

// An advisory lock between processes on a file, made where it was not. The system lets go of it
// when the process ends, however it ends.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  // Whether the file could be opened for writing; without, nothing is ever locked.
  bool is_open() const { return file_ >= 0; }
  // False where another process holds it.
  bool try_lock();
  // Waits for it.
  void lock();

 private:
  int file_;
};

}  // namespace halcyon
