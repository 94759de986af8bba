// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "halcyon/model/checkpoint/source.h"

namespace halcyon::checkpoint {

// A run of bytes with whatever keeps them alive: a part of a mapped file, or memory.
class Blob {
 public:
  Blob() = default;
  // The whole file, mapped private. Throws Error(input) when it cannot be.
  static Blob of_file(const std::filesystem::path& path);
  // size bytes of memory, not initialised.
  static Blob allocate(std::uint64_t size);
  static Blob of_bytes(std::vector<std::byte> bytes);

  std::span<std::byte> bytes() const { return bytes_; }
  std::uint64_t size() const { return bytes_.size(); }
  const std::shared_ptr<void>& owner() const { return owner_; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }
  // size bytes from offset, which must lie inside.
  Blob slice(std::uint64_t offset, std::uint64_t size) const;

  // Gives the pages of a mapped file back, so that reading a large one through does not fill the
  // memory of the process. For bytes that nothing has written to; no effect on other memory.
  void release_pages(std::uint64_t offset, std::uint64_t size) const;

 private:
  std::shared_ptr<void> owner_;
  std::span<std::byte> bytes_;
  bool mapped_ = false;
};

// What all compressed parts of one file may take together when inflated, so that a small file
// cannot fill the memory.
class InflateBudget {
 public:
  explicit InflateBudget(std::uint64_t file_size);
  // Throws Error(input) when size more bytes are too many.
  void spend(std::uint64_t size, const Source& source);
  std::uint64_t left() const { return left_; }

 private:
  std::uint64_t left_;
};

// A raw deflate stream (RFC 1951) that must give exactly size bytes and end.
Blob inflate(const Blob& compressed, std::uint64_t size, InflateBudget& budget,
             const Source& source);

// CRC-32 as in zip (polynomial 0xEDB88320), all threads; pages are released as they are read.
std::uint32_t crc32_of(const Blob& blob);

// The CRC-32 of two runs laid end to end, out of theirs.
std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::uint64_t second_size);

}  // namespace halcyon::checkpoint
