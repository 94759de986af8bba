// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/files.h"

#include <fcntl.h>
#include <openssl/evp.h>
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

fs::path temporary_name(const fs::path& path) {
  static std::atomic<unsigned> serial{0};
  fs::path name = path;
  name += fmt::format(".{}-{}.tmp", ::getpid(), serial++);
  return name;
}

}  // namespace

void prepare_folder_of(const fs::path& path) {
  const auto folder = fs::absolute(path).parent_path();
  std::error_code failure;
  fs::create_directories(folder, failure);
  HALCYON_CHECK_KIND(!failure, output, "write", "{}: {}", folder.string(), failure.message());
  HALCYON_CHECK_KIND(fs::is_directory(folder) && ::access(folder.c_str(), W_OK) == 0, output,
                     "write", "{}: expected a folder that can be written to", folder.string());
}

void write_atomically(const fs::path& path, const std::function<void(const fs::path&)>& write) {
  const fs::path temporary = temporary_name(path);
  try {
    write(temporary);
    flush_to_disk(temporary);
    fs::rename(temporary, path);
  } catch (const Error&) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  } catch (const std::exception& e) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
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
