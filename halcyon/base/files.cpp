// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/files.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <span>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/base/input_file.h"

namespace halcyon {
namespace fs = std::filesystem;

namespace {

struct Descriptor {
  explicit Descriptor(int value) : fd(value) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
};

// Write-back errors (a full disk) may show only here.
void flush_to_disk(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  HALCYON_CHECK_KIND(file.fd >= 0 && ::fsync(file.fd) == 0, output, "write", "{}: {}",
                     path.string(), std::strerror(errno));
}

// Beside the file that it will replace; removed unless it became that file.
class TemporaryFile {
 public:
  explicit TemporaryFile(const fs::path& target) : target_(target), name_(target) {
    static std::atomic<unsigned> serial{0};
    name_ += fmt::format(".{}-{}.tmp", ::getpid(), serial++);
  }
  ~TemporaryFile() {
    std::error_code ignored;
    if (!placed_) fs::remove(name_, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const fs::path& name() const { return name_; }
  void place() {
    keep_owner_and_permissions();
    flush_to_disk(name_);
    fs::rename(name_, target_);
    placed_ = true;
  }

 private:
  // As far as the process may: a new file keeps what the umask gave it.
  void keep_owner_and_permissions() const {
    struct stat before {};
    if (::stat(target_.c_str(), &before) != 0) return;
    constexpr auto kSame = static_cast<uid_t>(-1);
    [[maybe_unused]] const bool kept = ::chown(name_.c_str(), before.st_uid, before.st_gid) == 0 ||
                                       ::chown(name_.c_str(), kSame, before.st_gid) == 0;
    ::chmod(name_.c_str(), before.st_mode & 07777);
  }

  fs::path target_, name_;
  bool placed_ = false;
};

// The file behind path that can be written or replaced.
fs::path writable_target(const fs::path& path) {
  const fs::path target = behind_links(path);
  struct stat status {};
  const bool exists = ::stat(target.c_str(), &status) == 0;
  HALCYON_CHECK_KIND(!exists || S_ISREG(status.st_mode), output, "write",
                     "{}: expected a regular file or none, got {}", path.string(),
                     S_ISDIR(status.st_mode) ? "a folder" : "a device or a pipe");
  std::error_code ignored;
  HALCYON_CHECK_KIND(
      target == path || fs::is_directory(fs::absolute(target).parent_path(), ignored), output,
      "write", "{}: is a link to {}, whose folder does not exist", path.string(), target.string());
  return target;
}

}  // namespace

fs::path behind_links(const fs::path& path) {
  constexpr int kMostLinks = 40;  // Linux follows as many
  fs::path target = path;
  for (int i = 0; i < kMostLinks; ++i) {
    std::error_code failure;
    if (!fs::is_symlink(target, failure)) return target;
    const fs::path next = fs::read_symlink(target, failure);
    HALCYON_CHECK_KIND(!failure, output, "write", "{}: {}", target.string(), failure.message());
    target = target.parent_path() / next;  // next alone where it is absolute
  }
  throw_error(ErrorKind::output, "write", path.string() + ": is a link that leads in a circle");
}

void prepare_folder_of(const fs::path& path) {
  std::error_code failure;
  // not for a link: the disk that it leads to may be missing
  if (!fs::is_symlink(path, failure)) {
    const auto folder = fs::absolute(path).parent_path();
    fs::create_directories(folder, failure);
    HALCYON_CHECK_KIND(!failure, output, "write", "{}: {}", folder.string(), failure.message());
  }
  const auto folder = fs::absolute(writable_target(path)).parent_path();
  HALCYON_CHECK_KIND(fs::is_directory(folder) && ::access(folder.c_str(), W_OK) == 0, output,
                     "write", "{}: expected a folder that can be written to", folder.string());
}

void write_atomically(const fs::path& path, const std::function<void(const fs::path&)>& write) {
  TemporaryFile temporary(writable_target(path));
  try {
    write(temporary.name());
    temporary.place();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw Error(ErrorKind::output, fmt::format("[write] {}: {}", path.string(), e.what()));
  }
}

void write_text(const fs::path& path, std::string_view text) {
  write_atomically(path, [&](const fs::path& temporary) {
    std::ofstream out(temporary, std::ios::binary);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    out.close();
    HALCYON_CHECK_KIND(!out.fail(), output, "write", "{}: {}", path.string(), std::strerror(errno));
  });
}

std::string read_text(const fs::path& path, std::size_t limit) {
  const InputFile file(path);
  HALCYON_CHECK_KIND(file.size() <= limit, input, "read", "{}: expected at most {} bytes, got {}",
                     path.string(), limit, file.size());
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

std::string sha256_of_file(const fs::path& path) {
  const InputFile file(path);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  HALCYON_ASSERT(context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  for (std::uint64_t at = 0; at < file.size(); at += buffer.size()) {
    const auto piece = std::span(buffer).first(std::min(buffer.size(), file.size() - at));
    file.read(at, piece);
    HALCYON_ASSERT(EVP_DigestUpdate(context.get(), piece.data(), piece.size()) == 1);
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  HALCYON_ASSERT(EVP_DigestFinal_ex(context.get(), digest.data(), &length) == 1);
  std::string text;
  for (unsigned i = 0; i < length; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

}  // namespace halcyon
