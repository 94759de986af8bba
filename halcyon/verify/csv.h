// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace halcyon::verify {

// A comma-separated table with one line of names; fields may be in double quotes (RFC 4180, without
// line breaks inside).
struct Csv {
  std::filesystem::path path;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // each as long as the header
  std::vector<std::size_t> lines;              // line number of each row

  // Error(input) with the names that are there.
  std::size_t column(std::string_view name) const;
  // Error(input) where the field is not a number; "nan" in any case is one.
  double number(std::size_t row, std::size_t column) const;
  std::string where(std::size_t row) const;  // "FILE:LINE"
};

// Error(input) for a missing file, an empty one, or a row of another length than the header.
Csv read_csv(const std::filesystem::path& path);

// The field in quotes where it needs them.
std::string csv_field(std::string_view text);

}  // namespace halcyon::verify
