// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace halcyon {

// A comma-separated file (RFC 4180: quoted fields, doubled quotes, CRLF or LF) with a header line.
struct Csv {
  std::filesystem::path path;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // each as long as the header
  std::vector<int64_t> line;                   // of each row in the file, from 1

  // The place of a column; Error(input) with the names that exist when there is none.
  std::size_t column(std::string_view name) const;
  // Whether a field holds no value: it is empty or says "na" or "null" in any case.
  bool missing(std::size_t row, std::size_t column) const;
  // A field as a number, also "nan" and "inf"; NaN where it is missing. Error(input) naming file
  // and line for anything else.
  double number(std::size_t row, std::size_t column) const;
  std::string where(std::size_t row) const;  // "FILE:LINE"
};

// Throws Error(input) naming file and line: no header, a row of another length, an open quote, NUL
// bytes. Empty lines are skipped.
Csv parse_csv(std::string_view text, const std::filesystem::path& path);
// Also gzipped.
Csv read_csv(const std::filesystem::path& path);

// The field in quotes where it needs them.
std::string csv_field(std::string_view text);

}  // namespace halcyon
