// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "halcyon/base/input_file.h"
#include "halcyon/model/checkpoint/source.h"

namespace halcyon::checkpoint {

// A run of bytes: a part of an open file, read when asked for, or memory.
class Blob {
 public:
  Blob() = default;
  // The whole file; nothing is read yet. Throws Error(input) when it cannot be opened.
  static Blob of_file(const std::filesystem::path& path);
  // size bytes of memory, not initialised.
  static Blob allocate(std::uint64_t size);
  static Blob of_bytes(std::vector<std::byte> bytes);

  std::uint64_t size() const { return size_; }
  // size bytes from offset, which must lie inside.
  Blob slice(std::uint64_t offset, std::uint64_t size) const;

  // Copies the bytes from offset on, which must lie inside. Throws Error(input) when the file
  // cannot be read or was changed since it was opened.
  void read(std::uint64_t offset, std::span<std::byte> into) const;
  // The same on all threads.
  void read_in_pieces(std::uint64_t offset, std::span<std::byte> into) const;
  // The same bytes in memory; no copy where they are.
  Blob loaded() const;

  // Of a blob in memory only.
  std::span<std::byte> bytes() const;
  std::string_view text() const;

 private:
  std::shared_ptr<const InputFile> file_;  // none in memory
  std::shared_ptr<void> memory_;
  std::byte* address_ = nullptr;
  std::uint64_t offset_ = 0, size_ = 0;  // offset_: in the file
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

// A raw deflate stream (RFC 1951) that must give exactly size bytes and end. The caller has spent
// them from a budget.
Blob inflate(const Blob& compressed, std::uint64_t size, const Source& source);

// CRC-32 as in zip (polynomial 0xEDB88320), all threads; a file is not kept in memory.
std::uint32_t crc32_of(const Blob& blob);

// The CRC-32 of two runs laid end to end, out of theirs.
std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::uint64_t second_size);

}  // namespace halcyon::checkpoint
