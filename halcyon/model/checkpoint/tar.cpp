// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/tar.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "halcyon/model/checkpoint/zip.h"

namespace halcyon::checkpoint {

namespace {

constexpr std::uint64_t kBlock = 512, kMaxName = 4096, kMaxPax = std::uint64_t{1} << 20;

std::string_view text_field(std::string_view block, std::size_t offset, std::size_t size) {
  const auto text = block.substr(offset, size);
  return text.substr(0, std::min(text.find('\0'), text.size()));
}

// Octal digits between blanks, or GNU's base-256 (first bit set).
std::optional<std::uint64_t> number_field(std::string_view block, std::size_t offset,
                                          std::size_t size) {
  auto text = block.substr(offset, size);
  std::uint64_t value = 0;
  if ((static_cast<unsigned char>(text[0]) & 0x80) != 0) {
    if (static_cast<unsigned char>(text[0]) != 0x80) return std::nullopt;  // negative or enormous
    for (const char c : text.substr(1)) {
      if (value >> 55 != 0) return std::nullopt;
      value = value << 8 | static_cast<unsigned char>(c);
    }
    return value;
  }
  text = text.substr(0, std::min(text.find('\0'), text.size()));
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  const auto* end = text.data() + text.size();
  if (text.empty()) return 0;
  const auto [stop, error] = std::from_chars(text.data(), end, value, 8);
  return error == std::errc{} && stop == end ? std::optional(value) : std::nullopt;
}

bool checksum_holds(std::string_view block) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i)
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(block[i]);
  return number_field(block, 148, 8) == sum;
}

// What extended headers say about the member that follows.
struct Extended {
  std::optional<std::string> path;
  std::optional<std::uint64_t> size;
};

// Records "<length> <key>=<value>\n" of a pax header.
void read_pax(std::string_view text, Extended& extended, const Source& source) {
  while (!text.empty()) {
    std::size_t length = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), length);
    const auto digits = static_cast<std::size_t>(stop - text.data());
    source.check(error == std::errc{} && length <= text.size() && length > digits + 2 &&
                     text[digits] == ' ' && text[length - 1] == '\n',
                 "has a broken pax header");
    const auto record = text.substr(digits + 1, length - digits - 2);
    text.remove_prefix(length);
    const auto equals = record.find('=');
    source.check(equals != std::string_view::npos, "has a broken pax header");
    const auto key = record.substr(0, equals), value = record.substr(equals + 1);
    if (key == "path") extended.path = std::string(value);
    if (key == "size") {
      std::uint64_t size = 0;
      const auto parsed = std::from_chars(value.data(), value.data() + value.size(), size);
      source.check(parsed.ec == std::errc{} && parsed.ptr == value.data() + value.size(),
                   "has a broken size in a pax header");
      extended.size = size;
    }
    source.check(!key.starts_with("GNU.sparse"), "holds a sparse member");
  }
}

std::string header_name(std::string_view block) {
  const auto name = text_field(block, 0, 100);
  // "ustar\0" has a prefix for long names; GNU's "ustar " uses those bytes otherwise
  if (block.substr(257, 6) != std::string_view("ustar\0", 6)) return std::string(name);
  const auto prefix = text_field(block, 345, 155);
  return prefix.empty() ? std::string(name) : fmt::format("{}/{}", prefix, name);
}

}  // namespace

bool looks_like_tar(const Blob& bytes) {
  if (bytes.size() < kBlock) return false;
  const Blob first = bytes.slice(0, kBlock).loaded();
  return first.text()[0] != '\0' && checksum_holds(first.text());
}

std::map<std::string, Blob> read_tar(const Blob& bytes, const Source& source) {
  std::map<std::string, Blob> members;
  Extended extended;
  for (std::uint64_t position = 0;;) {
    source.check(bytes.size() - position >= kBlock, "ends at byte {} without an end mark",
                 bytes.size());
    const Blob header = bytes.slice(position, kBlock).loaded();
    const auto block = header.text();
    if (std::all_of(block.begin(), block.end(), [](char c) { return c == '\0'; })) break;
    source.check(checksum_holds(block), "expected a tar header at byte {}", position);
    const char type = block[156];
    const bool describes = type == 'x' || type == 'g' || type == 'L' || type == 'K';
    const auto announced =
        describes || !extended.size ? number_field(block, 124, 12) : extended.size;
    position += kBlock;
    source.check(announced && *announced <= bytes.size() - position,
                 "announces a member beyond its end at byte {}", position - kBlock);
    const auto size = *announced;
    const Blob content = bytes.slice(position, size);
    const auto padded = size + (kBlock - size % kBlock) % kBlock;
    source.check(padded <= bytes.size() - position, "ends inside a member");
    position += padded;

    if (type == 'x' || type == 'g') {
      source.check(size <= kMaxPax, "has a pax header of {} bytes", size);
      // global headers hold comments and times; a path or size for all members makes no sense
      Extended ignored;
      read_pax(content.loaded().text(), type == 'x' ? extended : ignored, source);
    } else if (type == 'L') {
      source.check(size <= kMaxName, "has a name of {} bytes", size);
      extended.path = std::string(text_field(content.loaded().text(), 0, size));
    } else if (type != 'K') {
      const auto name = extended.path.value_or(header_name(block));
      extended = {};
      if (type == '5') continue;
      source.check(type == '0' || type == '\0' || type == '7',
                   "member {}: expected a regular file, got type '{}'", printable(name),
                   printable({&type, 1}));
      source.check(members.emplace(checked_member_name(name, source), content).second,
                   "holds two members named {}", printable(name));
    }
  }
  return members;
}

}  // namespace halcyon::checkpoint
