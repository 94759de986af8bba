// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "halcyon/model/checkpoint/blob.h"

namespace halcyon::checkpoint {

// A zip archive (PKWARE APPNOTE 6.3: stored and deflated members, zip64, data descriptors), read
// whole from its central directory. Opening it refuses, with Error(input): directories that do not
// end where the file ends, sizes beyond the file, members that overlap, local headers that
// contradict the directory, encryption, several disks, names that are absolute, climb (".."), hold
// control characters or occur twice.
class ZipArchive {
 public:
  static constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
  struct Member {
    bool deflated() const { return method != 0; }
    std::uint16_t method = 0;
    std::uint32_t crc = 0;
    std::uint64_t begin = 0, stored_size = 0, size = 0;  // begin: of the data in the archive
  };

  ZipArchive(Blob bytes, std::shared_ptr<InflateBudget> budget, Source source);

  static bool looks_like(const Blob& bytes);

  const std::map<std::string, Member>& members() const { return members_; }
  bool has(const std::string& name) const { return members_.contains(name); }
  const Source& source() const { return source_; }

  const Member& member(const std::string& name) const;
  // The content of a member in memory. Error(input) when there is none of that name, it holds more
  // than limit bytes or its CRC-32 differs.
  Blob read(const std::string& name, std::uint64_t limit = kNoLimit) const;
  // The content of a stored member, not read yet: a part of the archive. check_stored() checks it.
  Blob stored(const std::string& name) const;
  // The content of a deflated member, CRC-32 checked; the caller has spent its size.
  Blob inflated(const std::string& name) const;

  // Checks every stored member's CRC-32 and returns that of the whole archive, in one pass over the
  // bytes: an archive within an archive is checked on both levels at the price of one.
  std::uint32_t check_stored() const;

 private:
  struct Directory {
    std::uint64_t begin, size, entries;
  };
  Directory find_directory() const;
  // Of the directory's bytes, from position on; returns the position of the next entry.
  std::uint64_t read_entry(const Blob& bytes, std::uint64_t position, const Directory& directory);
  void read_local_header(const std::string& name, Member& member, std::uint16_t flags,
                         std::uint64_t directory_begin) const;
  void check_overlaps(std::uint64_t directory_begin) const;

  Blob bytes_;
  std::shared_ptr<InflateBudget> budget_;
  Source source_;
  std::map<std::string, Member> members_;
  std::map<std::string, std::uint64_t> headers_;  // where each local header begins
};

// Refuses member names that could not be meant: empty, absolute, with "..", backslash or control
// characters. Returns the name without leading "./".
std::string checked_member_name(std::string_view name, const Source& source);

}  // namespace halcyon::checkpoint
