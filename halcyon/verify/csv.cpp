// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/csv.h"

#include <fmt/ranges.h>

#include <charconv>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"

namespace halcyon::verify {
namespace {

constexpr const char* kOperation = "read_csv";

std::vector<std::string> split(std::string_view line, const std::string& where) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted && c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += '"';
      ++i;
    } else if (c == '"' && (quoted || fields.back().empty())) {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  HALCYON_CHECK_KIND(!quoted, input, kOperation, "{}: expected a closing quote", where);
  return fields;
}

}  // namespace

std::string Csv::where(std::size_t row) const {
  return fmt::format("{}:{}", path.string(), lines.at(row));
}

std::size_t Csv::column(std::string_view name) const {
  for (std::size_t i = 0; i < header.size(); ++i)
    if (header[i] == name) return i;
  throw_error(ErrorKind::input, kOperation,
              fmt::format("{}: expected a column {}, got {}", path.string(), name,
                          fmt::join(header, ", ")));
}

double Csv::number(std::size_t row, std::size_t column) const {
  const std::string& text = rows.at(row).at(column);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  HALCYON_CHECK_KIND(error == std::errc() && end == text.data() + text.size(), input, kOperation,
                     "{}: expected a number for {}, got \"{}\"", where(row), header.at(column),
                     text);
  return value;
}

Csv read_csv(const std::filesystem::path& path) {
  const std::string text = read_text(path);
  Csv table;
  table.path = path;
  std::size_t line_number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) continue;
    const std::string where = fmt::format("{}:{}", path.string(), line_number);
    auto fields = split(line, where);
    if (table.header.empty()) {
      table.header = std::move(fields);
      continue;
    }
    HALCYON_CHECK_KIND(fields.size() == table.header.size(), input, kOperation,
                       "{}: expected {} fields, got {}", where, table.header.size(), fields.size());
    table.rows.push_back(std::move(fields));
    table.lines.push_back(line_number);
  }
  HALCYON_CHECK_KIND(!table.header.empty(), input, kOperation, "{}: expected a line of names",
                     path.string());
  return table;
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\n\r") == std::string_view::npos) return std::string(text);
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace halcyon::verify
