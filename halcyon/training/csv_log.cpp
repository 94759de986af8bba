// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/csv_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"

namespace halcyon::training {
namespace {

// The whole rows of text whose steps are at most last_step.
std::string rows_up_to(std::string_view text, int64_t last_step) {
  std::string kept;
  for (;;) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return kept;
    const std::string_view row = text.substr(0, end + 1);
    int64_t step = 0;
    const auto [stop, error] = std::from_chars(row.data(), row.data() + row.size(), step);
    if (error != std::errc() || *stop != ',' || step > last_step) return kept;
    kept += row;
    text.remove_prefix(end + 1);
  }
}

}  // namespace

CsvLog::CsvLog(const std::filesystem::path& path, const std::vector<std::string>& columns,
               int64_t last_step)
    : path_(path), columns_(columns.size()) {
  const std::string header = fmt::format("step,{}\n", fmt::join(columns, ","));
  std::string content = header;
  if (std::filesystem::exists(path) && last_step > 0) {
    const std::string old = read_text(path);
    HALCYON_CHECK_KIND(old.starts_with(header) || old.empty(), input, "CsvLog",
                       "{}: expected the columns {}", path.string(), header);
    if (!old.empty()) content += rows_up_to(std::string_view(old).substr(header.size()), last_step);
  }
  write_text(path, content);
  file_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file_ < 0) fail();
}

CsvLog::~CsvLog() {
  if (file_ >= 0) ::close(file_);
}

void CsvLog::fail() const {
  throw_error(ErrorKind::output, "CsvLog",
              fmt::format("{}: {}", path_.string(), std::strerror(errno)));
}

void CsvLog::row(int64_t step, const std::vector<double>& values) {
  HALCYON_ASSERT(values.size() == columns_);
  const std::string line = fmt::format("{},{}\n", step, fmt::join(values, ","));
  std::size_t written = 0;
  while (written < line.size()) {
    const ssize_t n = ::write(file_, line.data() + written, line.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail();
    written += static_cast<std::size_t>(n);
  }
}

void CsvLog::flush() {
  if (::fsync(file_) != 0) fail();
}

}  // namespace halcyon::training
