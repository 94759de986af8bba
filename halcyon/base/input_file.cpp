// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "halcyon/base/error.h"

namespace halcyon {
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMostAtOnce = std::size_t{1} << 30;  // Linux reads 2 GiB at most

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a named pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

void check_regular(const fs::path& path, const struct stat& status) {
  HALCYON_CHECK_KIND(S_ISREG(status.st_mode), input, "open", "{}: expected a regular file, got {}",
                     path.string(), kind_of(status.st_mode));
}

}  // namespace

InputFile::InputFile(const fs::path& path) : path_(path) {
  struct stat status {};
  HALCYON_CHECK_KIND(::stat(path.c_str(), &status) == 0, input, "open", "{}: {}", path.string(),
                     std::strerror(errno));
  check_regular(path, status);
  // O_NONBLOCK: should a pipe have taken the file's place by now, opening it must not wait
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  HALCYON_CHECK_KIND(descriptor_ >= 0, input, "open", "{}: {}", path.string(),
                     std::strerror(errno));
  try {
    HALCYON_CHECK_KIND(::fstat(descriptor_, &status) == 0, input, "open", "{}: {}", path.string(),
                       std::strerror(errno));
    check_regular(path, status);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
  modified_ = status.st_mtim;
}

InputFile::~InputFile() {
  ::close(descriptor_);
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> into) const {
  HALCYON_ASSERT(offset <= size_ && into.size() <= size_ - offset);
  for (std::size_t done = 0; done < into.size();) {
    const auto count =
        ::pread(descriptor_, into.data() + done, std::min(into.size() - done, kMostAtOnce),
                static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    HALCYON_CHECK_KIND(count >= 0, input, "read", "{}: {}", path_.string(), std::strerror(errno));
    HALCYON_CHECK_KIND(count > 0, input, "read",
                       "{}: was cut while it was read: ends at byte {}, expected {} bytes",
                       path_.string(), offset + done, size_);
    done += static_cast<std::size_t>(count);
  }
  check_unchanged();
}

void InputFile::check_unchanged() const {
  struct stat status {};
  HALCYON_CHECK_KIND(::fstat(descriptor_, &status) == 0, input, "read", "{}: {}", path_.string(),
                     std::strerror(errno));
  HALCYON_CHECK_KIND(static_cast<std::uint64_t>(status.st_size) == size_ &&
                         status.st_mtim.tv_sec == modified_.tv_sec &&
                         status.st_mtim.tv_nsec == modified_.tv_nsec,
                     input, "read",
                     "{}: was changed while it was read: expected {} bytes as when it was opened, "
                     "got {} bytes, written since",
                     path_.string(), size_, status.st_size);
}

bool InputFile::is_at_its_path() const {
  struct stat here {
  }, there{};
  return ::fstat(descriptor_, &here) == 0 && ::stat(path_.c_str(), &there) == 0 &&
         here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

std::vector<std::byte> read_bytes(const fs::path& path, std::uint64_t limit) {
  const InputFile file(path);
  HALCYON_CHECK_KIND(file.size() <= limit, input, "read", "{}: expected at most {} bytes, got {}",
                     path.string(), limit, file.size());
  std::vector<std::byte> bytes(file.size());
  file.read(0, bytes);
  return bytes;
}

}  // namespace halcyon
