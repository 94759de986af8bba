// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cctype>

#include "halcyon/base/error.h"
#include "halcyon/base/log.h"
#include "halcyon/base/netcdf_detail.h"
#include "halcyon/base/text.h"

namespace halcyon::netcdf_detail {
namespace {

bool one_of(const std::string& name, std::initializer_list<const char*> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// "ISO-8859-1" and "iso8859_1" are the same.
std::string plain(std::string_view encoding) {
  std::string out;
  for (const unsigned char c : encoding) {
    if (std::isalnum(c)) out += static_cast<char>(std::tolower(c));
  }
  return out;
}

}  // namespace

std::string in_utf8(std::string text) {
  return is_utf8(text) ? text : from_windows_1252(text);
}

void make_utf8(std::vector<std::string>& values, const std::optional<std::string>& encoding,
               const std::filesystem::path& file, std::string_view variable) {
  const auto ascii = [](const std::string& text) {
    return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x80; });
  };
  if (std::all_of(values.begin(), values.end(), ascii)) return;
  const auto name = plain(encoding.value_or("utf-8"));
  const bool latin = one_of(name, {"iso88591", "latin1", "windows1252", "cp1252"});
  HALCYON_CHECK_KIND(latin || one_of(name, {"utf8", "ascii", "usascii", "none"}), input, "NetCDF",
                     "{}: expected text of variable {} in UTF-8, ISO-8859-1 or Windows-1252, got "
                     "the _Encoding {}",
                     file.string(), variable, encoding.value_or(""));
  bool guessed = false;
  for (auto& value : values) {
    if (ascii(value) || (!latin && is_utf8(value))) continue;
    value = from_windows_1252(value);
    guessed = guessed || !latin;
  }
  if (guessed) {
    log::warn("{}: text of variable {} is not UTF-8; it was read as Windows-1252", file.string(),
              variable);
  }
}

}  // namespace halcyon::netcdf_detail
