// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <limits>
#include <span>
#include <vector>

namespace halcyon {

// A regular file open for reading. Its bytes are read into memory that the caller owns and are
// never mapped: a file that is cut or written over while the program runs can neither end the
// process nor change what was read before. A file that changed between opening and reading is an
// error; one that was replaced by renaming another over it is read as it was.
class InputFile {
 public:
  // Throws Error(input) naming the file when it cannot be opened or is not a regular file. A named
  // pipe is refused, not waited for.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // In bytes, when the file was opened.
  std::uint64_t size() const { return size_; }

  // Fills `into` with the bytes from offset on; they must lie inside. Several threads may read at
  // once. Throws Error(input) when the disk fails or the file is not as it was when opened.
  void read(std::uint64_t offset, std::span<std::byte> into) const;
  // Throws Error(input) when the file's size or time of modification is not what it was.
  void check_unchanged() const;
  // True when the path still leads to the file that was opened.
  bool is_at_its_path() const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  timespec modified_{};
};

// The whole file. Throws Error(input) when it cannot be read or holds more than limit bytes.
std::vector<std::byte> read_bytes(const std::filesystem::path& path,
                                  std::uint64_t limit = std::numeric_limits<std::uint64_t>::max());

}  // namespace halcyon
