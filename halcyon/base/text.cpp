// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace halcyon {
namespace {

constexpr std::string_view kMark = "\xEF\xBB\xBF";

// What Windows-1252 has at 0x80 to 0x9F; the five bytes that it leaves free are control characters.
constexpr std::array<char16_t, 32> kWindows = {
    0x20AC, 0x0081, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
    0x2039, 0x0152, 0x008D, 0x017D, 0x008F, 0x0090, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x009D, 0x017E, 0x0178};

unsigned byte_at(std::string_view text, std::size_t i) {
  return static_cast<unsigned char>(text[i]);
}

// Bytes of the character that begins at i; 0 where none does.
std::size_t character(std::string_view text, std::size_t i) {
  const unsigned first = byte_at(text, i);
  if (first < 0x80) return 1;
  const std::size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || i + size > text.size()) return 0;
  for (std::size_t k = 1; k < size; ++k) {
    if ((byte_at(text, i + k) & 0xC0) != 0x80) return 0;
  }
  const unsigned second = byte_at(text, i + 1);
  const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool beyond = (first == 0xED && second > 0x9F) || (first == 0xF4 && second > 0x8F);
  return overlong || beyond ? 0 : size;
}

// Where the first byte lies that is no UTF-8 or NUL; the text's size where none is.
std::size_t first_fault(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size() && text[i] != '\0') {
    const auto size = character(text, i);
    if (size == 0) break;
    i += size;
  }
  return i;
}

const char* wide_encoding(std::string_view head) {
  const auto is = [&](std::string_view mark) { return head.starts_with(mark); };
  using namespace std::string_view_literals;
  if (is("\xFF\xFE\0\0"sv) || is("\0\0\xFE\xFF"sv)) return "UTF-32";
  if (is("\xFF\xFE") || is("\xFE\xFF")) return "UTF-16";
  if (head.size() < 4) return nullptr;
  // without a mark: letters with zeros between them
  const auto letter = [&](std::size_t i) { return head[i] >= '\t' && head[i] <= '~'; };
  const auto zero = [&](std::size_t i) { return head[i] == '\0'; };
  if (zero(1) && zero(3) && letter(0) && letter(2)) return "UTF-16LE";
  if (zero(0) && zero(2) && letter(1) && letter(3)) return "UTF-16BE";
  if (zero(1) && zero(2) && zero(3) && letter(0)) return "UTF-32LE";
  if (zero(0) && zero(1) && zero(2) && letter(3)) return "UTF-32BE";
  return nullptr;
}

void append(std::string& out, char16_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

}  // namespace

bool is_utf8(std::string_view bytes) {
  for (std::size_t i = 0; i < bytes.size();) {
    const auto size = character(bytes, i);
    if (size == 0) return false;
    i += size;
  }
  return true;
}

std::string_view without_mark(std::string_view text) {
  if (text.starts_with(kMark)) text.remove_prefix(kMark.size());
  return text;
}

std::optional<TextFault> wide_text_fault(std::string_view head) {
  const char* encoding = wide_encoding(head);
  if (encoding == nullptr) return std::nullopt;
  return TextFault{1, 1,
                   fmt::format("expected UTF-8 text, got {}: save it as UTF-8, or convert it with "
                               "iconv -f {} -t UTF-8",
                               encoding, encoding)};
}

std::optional<TextFault> text_fault(std::string_view bytes) {
  if (auto wide = wide_text_fault(bytes)) return wide;
  const auto text = without_mark(bytes);
  const auto at = first_fault(text);
  if (at == text.size()) return std::nullopt;
  TextFault fault{1, 1, {}};
  for (std::size_t i = 0; i < at; i += character(text, i)) {
    const bool line_end = text[i] == '\n' || (text[i] == '\r' && text[i + 1] != '\n');
    fault.line += line_end ? 1 : 0;
    fault.column = line_end ? 1 : fault.column + 1;
  }
  const auto byte = byte_at(text, at);
  fault.what = byte == 0
                   ? "expected UTF-8 text, got a NUL byte"
                   : fmt::format(
                         "expected UTF-8 text, got the byte 0x{:02X}: save it as UTF-8, or convert "
                         "it from its encoding, as with iconv -f WINDOWS-1252 -t UTF-8",
                         byte);
  return fault;
}

std::string from_windows_1252(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + 8);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = byte_at(bytes, i);
    append(out, byte >= 0x80 && byte < 0xA0 ? kWindows[byte - 0x80] : static_cast<char16_t>(byte));
  }
  return out;
}

std::string printable(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (std::size_t i = 0; i < bytes.size();) {
    const auto size = character(bytes, i);
    if (size == 0) {
      out += fmt::format("\\x{:02X}", byte_at(bytes, i));
    } else {
      out += bytes.substr(i, size);
    }
    i += std::max<std::size_t>(size, 1);
  }
  return out;
}

}  // namespace halcyon
