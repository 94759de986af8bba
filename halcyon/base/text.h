// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// Text is UTF-8 inside Halcyon. What comes from elsewhere becomes so here, or is an error.
namespace halcyon {

// As nlohmann::json and netCDF want it: no surrogates, no overlong forms, nothing past U+10FFFF.
bool is_utf8(std::string_view bytes);

// The text after its UTF-8 byte order mark, which spreadsheets put first.
std::string_view without_mark(std::string_view text);

// Why bytes cannot be read as UTF-8 text, and where: line and character, from 1.
struct TextFault {
  int64_t line, column;
  std::string what;  // with the cure
};
// Nothing where the bytes are UTF-8; else UTF-16, UTF-32, a NUL or a byte of another encoding.
std::optional<TextFault> text_fault(std::string_view bytes);
// The same for UTF-16 and UTF-32 alone, from a file's first bytes.
std::optional<TextFault> wide_text_fault(std::string_view head);

// Windows-1252, which has all of ISO 8859-1's letters, in UTF-8.
std::string from_windows_1252(std::string_view bytes);

// Text, or the name of a file, for products: a byte that is not UTF-8 becomes four characters,
// \xE9.
std::string printable(std::string_view bytes);

// A JSON value as text. Never throws: what slipped in and is not UTF-8 becomes U+FFFD.
template <class Json>
std::string json_text(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace halcyon
