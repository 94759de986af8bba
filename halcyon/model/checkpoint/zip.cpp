// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/zip.h"

#include <algorithm>
#include <bit>
#include <span>
#include <vector>

namespace halcyon::checkpoint {

static_assert(std::endian::native == std::endian::little, "zip fields are little endian");

namespace {

constexpr std::uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50,
                        kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr std::uint64_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56,
                        kLocator64Size = 20, kMaxComment = 0xffff, kMaxEntries = 1'000'000,
                        kMaxDirectory = std::uint64_t{1} << 28;
constexpr std::uint16_t kStored = 0, kDeflated = 8, kEncrypted = 1, kDescriptor = 8,
                        kExtra64 = 0x0001;

// The caller has checked that the field lies inside.
template <class T>
T field(const Blob& bytes, std::uint64_t position) {
  T value;
  bytes.read(position, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

}  // namespace

std::string checked_member_name(std::string_view name, const Source& source) {
  while (name.starts_with("./")) name.remove_prefix(2);
  const bool plain = std::none_of(
      name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '\\'; });
  const std::string framed = "/" + std::string(name) + "/";
  source.check(!name.empty() && plain && name.front() != '/' &&
                   framed.find("/../") == std::string::npos && (name.size() < 2 || name[1] != ':'),
               "holds a member with the forbidden name \"{}\"", printable(name));
  return std::string(name);
}

ZipArchive::ZipArchive(Blob bytes, std::shared_ptr<InflateBudget> budget, Source source)
    : bytes_(std::move(bytes)), budget_(std::move(budget)), source_(std::move(source)) {
  const Directory directory = find_directory();
  const Blob entries = bytes_.slice(directory.begin, directory.size).loaded();
  std::uint64_t position = 0;
  for (std::uint64_t i = 0; i < directory.entries; ++i)
    position = read_entry(entries, position, directory);
  source_.check(position == directory.size, "its directory takes {} bytes, expected {}", position,
                directory.size);
  check_overlaps(directory.begin);
}

bool ZipArchive::looks_like(const Blob& bytes) {
  return bytes.size() >= kEndSize &&
         (field<std::uint32_t>(bytes, 0) == kLocal || field<std::uint32_t>(bytes, 0) == kEnd);
}

ZipArchive::Directory ZipArchive::find_directory() const {
  source_.check(bytes_.size() >= kEndSize, "is too short for a zip archive: {} bytes",
                bytes_.size());
  // the end record is followed by nothing but a comment
  const std::uint64_t tail =
      std::min(bytes_.size(), kEndSize + kMaxComment + kLocator64Size + kEnd64Size);
  const std::uint64_t skipped = bytes_.size() - tail;
  const Blob bytes = bytes_.slice(skipped, tail).loaded();
  const std::uint64_t last = bytes.size() - kEndSize, first = last - std::min(last, kMaxComment);
  std::uint64_t end = last;
  const auto ends_here = [&](std::uint64_t p) {
    return field<std::uint32_t>(bytes, p) == kEnd &&
           p + kEndSize + field<std::uint16_t>(bytes, p + 20) == bytes.size();
  };
  while (end > first && !ends_here(end)) --end;
  source_.check(ends_here(end), "has no zip directory at its end: truncated or not a zip archive");

  source_.check(field<std::uint16_t>(bytes, end + 4) == field<std::uint16_t>(bytes, end + 6),
                "is one of several disks");
  Directory directory{field<std::uint32_t>(bytes, end + 16), field<std::uint32_t>(bytes, end + 12),
                      field<std::uint16_t>(bytes, end + 10)};
  std::uint64_t directory_end = skipped + end;
  if (end >= kLocator64Size && field<std::uint32_t>(bytes, end - kLocator64Size) == kLocator64) {
    const auto where = field<std::uint64_t>(bytes, end - kLocator64Size + 8);
    const auto latest = skipped + end - kLocator64Size;
    source_.check(latest >= kEnd64Size && where <= latest - kEnd64Size &&
                      field<std::uint32_t>(bytes_, where) == kEnd64,
                  "its zip64 locator points to byte {}, where no zip64 record is", where);
    const Blob record = bytes_.slice(where, kEnd64Size).loaded();
    directory = {field<std::uint64_t>(record, 48), field<std::uint64_t>(record, 40),
                 field<std::uint64_t>(record, 32)};
    directory_end = where;
  }
  source_.check(
      directory.begin <= directory_end && directory.size == directory_end - directory.begin,
      "announces a directory of {} bytes at byte {}, but it must end at byte {}", directory.size,
      directory.begin, directory_end);
  source_.check(directory.entries <= std::min(directory.size / kCentralSize, kMaxEntries),
                "announces {} members in a directory of {} bytes", directory.entries,
                directory.size);
  source_.check(directory.size <= kMaxDirectory, "has a directory of {} bytes, more than {}",
                directory.size, kMaxDirectory);
  return directory;
}

std::uint64_t ZipArchive::read_entry(const Blob& bytes, std::uint64_t position,
                                     const Directory& directory) {
  const std::uint64_t end = bytes.size();
  source_.check(end - position >= kCentralSize && field<std::uint32_t>(bytes, position) == kCentral,
                "expected a directory entry at byte {}", directory.begin + position);
  const auto flags = field<std::uint16_t>(bytes, position + 8);
  const auto name_size = field<std::uint16_t>(bytes, position + 28);
  const auto extra_size = field<std::uint16_t>(bytes, position + 30);
  const auto comment_size = field<std::uint16_t>(bytes, position + 32);
  const std::uint64_t next = position + kCentralSize + name_size + extra_size + comment_size;
  source_.check(next <= end, "the directory entry at byte {} is longer than the directory",
                directory.begin + position);
  const auto name =
      checked_member_name(bytes.slice(position + kCentralSize, name_size).text(), source_);

  Member member{
      field<std::uint16_t>(bytes, position + 10), field<std::uint32_t>(bytes, position + 16), 0,
      field<std::uint32_t>(bytes, position + 20), field<std::uint32_t>(bytes, position + 24)};
  std::uint64_t header = field<std::uint32_t>(bytes, position + 42);
  // zip64: what did not fit stands in the extra field, in this order
  std::uint64_t extra = position + kCentralSize + name_size;
  const std::uint64_t extra_end = extra + extra_size;
  while (extra_end - extra >= 4) {
    const auto id = field<std::uint16_t>(bytes, extra);
    const std::uint64_t stop = extra + 4 + field<std::uint16_t>(bytes, extra + 2);
    source_.check(stop <= extra_end, "member {} has a broken extra field", printable(name));
    if (id == kExtra64) {
      std::uint64_t at = extra + 4;
      for (auto* value : {&member.size, &member.stored_size, &header}) {
        if (*value != 0xffffffff) continue;
        source_.check(stop - at >= 8, "member {} lacks its zip64 sizes", printable(name));
        *value = field<std::uint64_t>(bytes, at);
        at += 8;
      }
    }
    extra = stop;
  }
  source_.check((flags & kEncrypted) == 0, "member {} is encrypted", printable(name));
  source_.check(member.method == kStored || member.method == kDeflated,
                "member {}: expected stored or deflated, got compression method {}",
                printable(name), member.method);
  source_.check(member.method != kStored || member.size == member.stored_size,
                "member {} is stored, but has {} bytes in {}", printable(name), member.size,
                member.stored_size);
  source_.check(header <= directory.begin && directory.begin - header >= kLocalSize,
                "member {} announces its header at byte {}, beyond the members", printable(name),
                header);
  member.begin = header;
  read_local_header(name, member, flags, directory.begin);
  source_.check(members_.emplace(name, member).second, "holds two members named {}",
                printable(name));
  headers_.emplace(name, header);
  return next;
}

void ZipArchive::read_local_header(const std::string& name, Member& member, std::uint16_t flags,
                                   std::uint64_t directory_begin) const {
  const std::uint64_t header = member.begin;
  const Blob bytes = bytes_.slice(header, kLocalSize).loaded();  // inside, as read_entry() saw
  source_.check(field<std::uint32_t>(bytes, 0) == kLocal,
                "member {} has no local header at byte {}", printable(name), header);
  const auto name_size = field<std::uint16_t>(bytes, 26);
  const std::uint64_t data = header + kLocalSize + name_size + field<std::uint16_t>(bytes, 28);
  source_.check(data <= directory_begin && member.stored_size <= directory_begin - data,
                "member {} announces {} bytes at byte {}, beyond the members", printable(name),
                member.stored_size, data);
  const Blob local_name = bytes_.slice(header + kLocalSize, name_size).loaded();
  source_.check(field<std::uint16_t>(bytes, 8) == member.method &&
                    checked_member_name(local_name.text(), source_) == name,
                "member {} is not what its local header at byte {} says", printable(name), header);
  const auto agrees = [&](std::uint64_t offset, std::uint64_t value) {
    const auto local = field<std::uint32_t>(bytes, offset);
    return local == value || local == 0xffffffff;
  };
  source_.check(
      (flags & kDescriptor) != 0 || (field<std::uint32_t>(bytes, 14) == member.crc &&
                                     agrees(18, member.stored_size) && agrees(22, member.size)),
      "member {} has other sizes or another checksum in its local header", printable(name));
  member.begin = data;
}

void ZipArchive::check_overlaps(std::uint64_t directory_begin) const {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  ranges.reserve(members_.size());
  for (const auto& [name, member] : members_)
    ranges.emplace_back(headers_.at(name), member.begin + member.stored_size);
  std::sort(ranges.begin(), ranges.end());
  std::uint64_t position = 0;
  for (const auto& [begin, end] : ranges) {
    source_.check(begin >= position, "holds members that overlap at byte {}", begin);
    position = end;
  }
  source_.check(position <= directory_begin, "its members run into its directory");
}

const ZipArchive::Member& ZipArchive::member(const std::string& name) const {
  const auto found = members_.find(name);
  source_.check(found != members_.end(), "holds no member named {}", printable(name));
  return found->second;
}

Blob ZipArchive::stored(const std::string& name) const {
  const Member& m = member(name);
  HALCYON_ASSERT(!m.deflated());
  return bytes_.slice(m.begin, m.stored_size);
}

Blob ZipArchive::inflated(const std::string& name) const {
  const Member& m = member(name);
  HALCYON_ASSERT(m.deflated());
  Blob content = inflate(bytes_.slice(m.begin, m.stored_size), m.size, source_.inside(name));
  source_.check(crc32_of(content) == m.crc, "member {} is corrupt: its CRC-32 differs",
                printable(name));
  return content;
}

Blob ZipArchive::read(const std::string& name, std::uint64_t limit) const {
  const Member& m = member(name);
  source_.check(m.size <= limit, "member {} announces {} bytes, expected at most {}",
                printable(name), m.size, limit);
  if (m.deflated()) {
    budget_->spend(m.size, source_.inside(name));
    return inflated(name);
  }
  Blob content = stored(name).loaded();
  source_.check(crc32_of(content) == m.crc, "member {} is corrupt: its CRC-32 differs",
                printable(name));
  return content;
}

std::uint32_t ZipArchive::check_stored() const {
  std::map<std::uint64_t, std::pair<const std::string*, const Member*>> by_position;
  for (const auto& [name, member] : members_) {
    if (member.stored_size > 0) by_position[member.begin] = {&name, &member};
    source_.check(member.stored_size > 0 || member.crc == 0,
                  "member {} is corrupt: its CRC-32 differs", printable(name));
  }
  std::uint32_t whole = 0;
  std::uint64_t position = 0;
  const auto add = [&](std::uint64_t end) {
    const auto part = crc32_of(bytes_.slice(position, end - position));
    whole = crc32_joined(whole, part, end - position);
    position = end;
    return part;
  };
  for (const auto& [begin, entry] : by_position) {
    const auto& [name, member] = entry;
    add(begin);
    const auto crc = add(begin + member->stored_size);
    source_.check(member->deflated() || crc == member->crc,
                  "member {} is corrupt: its CRC-32 differs", printable(*name));
  }
  add(bytes_.size());
  return whole;
}

}  // namespace halcyon::checkpoint
