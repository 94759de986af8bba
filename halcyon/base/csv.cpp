// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/csv.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>
#include <map>
#include <set>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/gzip.h"
#include "halcyon/base/text.h"
#include "halcyon/base/time.h"

namespace halcyon {
namespace {

std::string_view trimmed(std::string_view field) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!field.empty() && blank(field.front())) field.remove_prefix(1);
  while (!field.empty() && blank(field.back())) field.remove_suffix(1);
  return field;
}

bool is_blank(std::string_view field) {
  return trimmed(field).empty();
}

bool all_blank(const std::vector<std::string>& fields) {
  return std::all_of(fields.begin(), fields.end(), [](const auto& f) { return is_blank(f); });
}

bool is_missing(std::string_view field) {
  std::string lower(field);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  static const std::set<std::string, std::less<>> marks = {"",     "na",   "n/a", "#n/a", "<na>",
                                                           "null", "none", "m",   "-",    "--"};
  return marks.contains(lower);
}

// Reads record after record.
class Parser {
 public:
  Parser(std::string_view text, const std::filesystem::path& path)
      : text_(without_mark(text)), path_(path) {}

  bool done() const { return at_ >= text_.size(); }
  int64_t line() const { return line_; }

  std::vector<std::string> record() {
    std::vector<std::string> fields(1);
    while (!done()) {
      const char c = text_[at_++];
      if (c == '"' && is_blank(fields.back())) {
        fields.back().clear();
        quoted(fields.back());
      } else if (c == ',') {
        fields.emplace_back();
      } else if (ends_line(c)) {
        ++line_;
        break;
      } else if (c != '\r') {  // of CRLF
        fields.back() += c;
      }
    }
    return fields;
  }

 private:
  bool ends_line(char c) const {
    return c == '\n' || (c == '\r' && (done() || text_[at_] != '\n'));
  }

  void quoted(std::string& field) {
    const auto first = line_;
    while (true) {
      HALCYON_CHECK_KIND(!done(), input, "CSV", "{}:{}: a quote is not closed", path_.string(),
                         first);
      const char c = text_[at_++];
      if (ends_line(c)) ++line_;
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

void check_separator(const Csv& csv, int64_t line) {
  const auto& first = csv.header[0];
  for (const auto& [mark, name] : {std::pair(';', "semicolons"), std::pair('\t', "tabs")}) {
    HALCYON_CHECK_KIND(first.find(mark) == std::string::npos, input, "CSV",
                       "{}:{}: expected columns separated by commas and numbers with points, got "
                       "{}: save it so (R: write.csv)",
                       csv.path.string(), line, name);
  }
}

// Only the first column may have content without a name: the names of rows.
bool has_content(const Csv& csv, std::size_t column) {
  for (std::size_t r = 0; r < csv.rows.size(); ++r) {
    if (is_blank(csv.rows[r][column])) continue;
    HALCYON_CHECK_KIND(column == 0, input, "CSV",
                       "{}: expected nothing in column {}, which has no name, got \"{}\"",
                       csv.where(r), column + 1, csv.rows[r][column]);
    return true;
  }
  return false;
}

// Once all rows are there: columns without content go, each name stands once. line: of the header.
void settle_columns(Csv& csv, int64_t line) {
  std::map<std::string, std::size_t> place;
  for (std::size_t c = 0; c < csv.header.size(); ++c) {
    csv.header[c] = std::string(trimmed(csv.header[c]));
    const auto [found, fresh] = place.emplace(csv.header[c], c);
    HALCYON_CHECK_KIND(fresh || csv.header[c].empty(), input, "CSV",
                       "{}:{}: the columns {} and {} have the same name {}", csv.path.string(),
                       line, found->second + 1, c + 1, csv.header[c]);
  }
  for (std::size_t c = csv.header.size(); c-- > 0;) {
    if (!csv.header[c].empty() || has_content(csv, c)) continue;
    const auto offset = static_cast<std::ptrdiff_t>(c);
    csv.header.erase(csv.header.begin() + offset);
    for (auto& row : csv.rows) row.erase(row.begin() + offset);
  }
}

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
  return is_missing(text(row, column));
}

double Csv::number(std::size_t row, std::size_t column) const {
  const auto field = text(row, column);
  if (is_missing(field)) return std::numeric_limits<double>::quiet_NaN();
  auto digits = field;
  if (digits.size() > 1 && digits[0] == '+' && digits[1] != '-') digits.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  HALCYON_CHECK_KIND(error == std::errc() && end == digits.data() + digits.size(), input, "CSV",
                     "{}: expected a number in column {}, got \"{}\"", where(row), header[column],
                     field);
  return value;
}

int64_t Csv::time(std::size_t row, std::size_t column) const {
  try {
    return parse_time(text(row, column));
  } catch (const Error& e) {
    throw_error(ErrorKind::input, "CSV", fmt::format("{}: {}", where(row), e.what()));
  }
}

std::string_view Csv::text(std::size_t row, std::size_t column) const {
  return trimmed(rows[row][column]);
}

Csv parse_csv(std::string_view text, const std::filesystem::path& path) {
  if (const auto fault = text_fault(text)) {
    throw_error(
        ErrorKind::input, "CSV",
        fmt::format("{}:{}:{}: {}", path.string(), fault->line, fault->column, fault->what));
  }
  Parser parser(text, path);
  Csv csv;
  csv.path = path;
  int64_t header_line = 1;
  while (!parser.done()) {
    const auto line = parser.line();
    auto fields = parser.record();
    if (all_blank(fields)) continue;
    if (csv.header.empty()) {
      csv.header = std::move(fields);
      header_line = line;
      check_separator(csv, line);
      continue;
    }
    const auto named = csv.header.size();
    while (fields.size() > named && is_blank(fields.back())) fields.pop_back();
    HALCYON_CHECK_KIND(
        fields.size() == named, input, "CSV",
        "{}:{}: expected {} fields as in the header, got {}{}", path.string(), line, named,
        fields.size(),
        fields.size() == named + 1 ? " (one is the row's name? Leave row names out)" : "");
    csv.rows.push_back(std::move(fields));
    csv.line.push_back(line);
  }
  HALCYON_CHECK_KIND(!csv.header.empty(), input, "CSV", "{}: expected a header line",
                     path.string());
  settle_columns(csv, header_line);
  return csv;
}

Csv read_csv(const std::filesystem::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (is_gzip(bytes)) {
    const auto text = gunzip(bytes, path);
    return parse_csv({reinterpret_cast<const char*>(text.data()), text.size()}, path);
  }
  return parse_csv({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

std::vector<std::string> csv_header(std::string_view text) {
  const std::filesystem::path unnamed;
  Parser parser(text, unnamed);
  try {
    while (!parser.done()) {
      auto fields = parser.record();
      if (all_blank(fields)) continue;
      for (auto& field : fields) field = std::string(trimmed(field));
      return fields;
    }
  } catch (const Error&) {  // an open quote
  }
  return {};
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\n\r") == std::string_view::npos) return std::string(text);
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace halcyon
