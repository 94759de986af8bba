// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace halcyon {

// A comma-separated file in UTF-8 (RFC 4180: quoted fields, doubled quotes) with a header line, as
// spreadsheets, R and pandas write it: lines end in LF, CRLF or CR, a byte order mark may come
// first. Lines and columns without any content are left out. A first column without a name that has
// content, the row names of R and pandas, stays with the name "".
struct Csv {
  std::filesystem::path path;
  std::vector<std::string> header;             // trimmed, each name once
  std::vector<std::vector<std::string>> rows;  // each as long as the header
  std::vector<int64_t> line;                   // of each row in the file, from 1

  // The place of a column; Error(input) with the names that exist when there is none.
  std::size_t column(std::string_view name) const;
  // Whether a field holds no value: it is empty or one of the marks for that, in any case: NA, N/A,
  // #N/A, <NA>, null, none, M, - and --.
  bool missing(std::size_t row, std::size_t column) const;
  // A field as a number, also "nan" and "inf"; NaN where it is missing. Error(input) naming file
  // and line for anything else.
  double number(std::size_t row, std::size_t column) const;
  // A field as seconds since 1970 (base/time.h); Error(input) naming file and line.
  int64_t time(std::size_t row, std::size_t column) const;
  // A field without blanks at its ends.
  std::string_view text(std::size_t row, std::size_t column) const;
  std::string where(std::size_t row) const;  // "FILE:LINE"
};

// Throws Error(input) naming file and line: no header, no UTF-8, columns that are not separated by
// commas, a name that stands there twice, content in a column without a name, a row of another
// length, an open quote, NUL bytes.
Csv parse_csv(std::string_view text, const std::filesystem::path& path);
// Also gzipped.
Csv read_csv(const std::filesystem::path& path);

// The names in the first line of what may be a CSV, for telling formats apart; never an error.
std::vector<std::string> csv_header(std::string_view text);

// The field in quotes where it needs them.
std::string csv_field(std::string_view text);

}  // namespace halcyon
