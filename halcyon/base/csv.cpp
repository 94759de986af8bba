// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/csv.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>

#include "halcyon/base/error.h"
#include "halcyon/base/gzip.h"
#include "halcyon/base/input_file.h"

namespace halcyon {
namespace {

std::string_view trimmed(std::string_view field) {
  while (!field.empty() && field.front() == ' ') field.remove_prefix(1);
  while (!field.empty() && field.back() == ' ') field.remove_suffix(1);
  return field;
}

bool is_missing(std::string_view field) {
  std::string lower(field);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower.empty() || lower == "na" || lower == "null";
}

// Reads record after record.
class Parser {
 public:
  Parser(std::string_view text, const std::filesystem::path& path) : text_(text), path_(path) {
    if (text_.starts_with("\xEF\xBB\xBF")) text_.remove_prefix(3);  // byte order mark
  }

  bool done() const { return at_ >= text_.size(); }
  int64_t line() const { return line_; }

  std::vector<std::string> record() {
    std::vector<std::string> fields(1);
    while (!done()) {
      const char c = text_[at_++];
      HALCYON_CHECK_KIND(c != '\0', input, "CSV", "{}:{}: a NUL byte", path_.string(), line_);
      if (c == '"' && fields.back().empty()) {
        quoted(fields.back());
      } else if (c == ',') {
        fields.emplace_back();
      } else if (c == '\n') {
        ++line_;
        break;
      } else if (c != '\r' || done() || text_[at_] != '\n') {
        fields.back() += c;
      }
    }
    return fields;
  }

 private:
  void quoted(std::string& field) {
    const auto first = line_;
    while (true) {
      HALCYON_CHECK_KIND(!done(), input, "CSV", "{}:{}: a quote is not closed", path_.string(),
                         first);
      const char c = text_[at_++];
      if (c == '\n') ++line_;
      if (c != '"') {
        field += c;
      } else if (!done() && text_[at_] == '"') {
        field += text_[at_++];
      } else {
        return;
      }
    }
  }

  std::string_view text_;
  const std::filesystem::path& path_;
  std::size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

std::string Csv::where(std::size_t row) const {
  return fmt::format("{}:{}", path.string(), line.at(row));
}

std::size_t Csv::column(std::string_view name) const {
  const auto found = std::find(header.begin(), header.end(), name);
  HALCYON_CHECK_KIND(found != header.end(), input, "CSV", "{}: no column {}; it has {}",
                     path.string(), name, fmt::join(header, ", "));
  return static_cast<std::size_t>(found - header.begin());
}

bool Csv::missing(std::size_t row, std::size_t column) const {
  return is_missing(trimmed(rows[row][column]));
}

double Csv::number(std::size_t row, std::size_t column) const {
  const auto field = trimmed(rows[row][column]);
  if (is_missing(field)) return std::numeric_limits<double>::quiet_NaN();
  double value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  HALCYON_CHECK_KIND(error == std::errc() && end == field.data() + field.size(), input, "CSV",
                     "{}: expected a number in column {}, got \"{}\"", where(row), header[column],
                     field);
  return value;
}

Csv parse_csv(std::string_view text, const std::filesystem::path& path) {
  Parser parser(text, path);
  Csv csv;
  csv.path = path;
  while (!parser.done()) {
    const auto line = parser.line();
    auto fields = parser.record();
    if (fields.size() == 1 && fields[0].empty()) continue;
    if (csv.header.empty()) {
      csv.header = std::move(fields);
      continue;
    }
    HALCYON_CHECK_KIND(fields.size() == csv.header.size(), input, "CSV",
                       "{}:{}: expected {} fields as in the header, got {}", path.string(), line,
                       csv.header.size(), fields.size());
    csv.rows.push_back(std::move(fields));
    csv.line.push_back(line);
  }
  HALCYON_CHECK_KIND(!csv.header.empty(), input, "CSV", "{}: expected a header line",
                     path.string());
  return csv;
}

Csv read_csv(const std::filesystem::path& path) {
  const auto bytes = read_bytes(path);
  if (is_gzip(bytes)) {
    const auto text = gunzip(bytes, path);
    return parse_csv({reinterpret_cast<const char*>(text.data()), text.size()}, path);
  }
  return parse_csv({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\n\r") == std::string_view::npos) return std::string(text);
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace halcyon
