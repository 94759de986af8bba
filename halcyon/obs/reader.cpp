// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/reader.h"

#include <algorithm>
#include <set>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/gzip.h"
#include "halcyon/base/patterns.h"
#include "halcyon/base/text.h"
#include "halcyon/obs/variables.h"

namespace halcyon::obs {
namespace {

constexpr std::size_t kHead = std::size_t{1} << 16;

std::map<std::string, Format>& registry() {
  static std::map<std::string, Format> formats;
  return formats;
}

std::string format_names() {
  std::string names;
  for (const auto& [name, format] : registry()) names += (names.empty() ? "" : ", ") + name;
  return names;
}

bool like_netcdf(std::string_view head) {
  return head.starts_with("CDF") || head.starts_with("\x89HDF");
}

}  // namespace

bool register_format(Format format) {
  const std::string name = format.name;
  HALCYON_ASSERT(registry().emplace(name, std::move(format)).second);
  return true;
}

std::vector<const Format*> formats() {
  std::vector<const Format*> all;
  for (const auto& [name, format] : registry()) all.push_back(&format);
  return all;
}

OpenFile open_file(const std::filesystem::path& path) {
  OpenFile file{path, {}, nullptr};
  std::vector<std::byte> unpacked;
  {
    const MappedFile mapped(path);
    std::span<const std::byte> bytes = mapped.bytes();
    if (is_gzip(bytes)) {
      unpacked = gunzip(bytes, path);
      bytes = unpacked;
    }
    file.head.assign(reinterpret_cast<const char*>(bytes.data()), std::min(bytes.size(), kHead));
  }
  if (!like_netcdf(file.head)) {
    file.head = without_mark(file.head);
  } else {
    file.netcdf = unpacked.empty() ? std::make_shared<NetcdfReader>(path)
                                   : std::make_shared<NetcdfReader>(std::move(unpacked), path);
  }
  return file;
}

const Format& detect_format(const OpenFile& file) {
  for (const auto& [name, format] : registry()) {
    if (format.recognises(file)) return format;
  }
  throw_error(
      ErrorKind::input, "observations",
      fmt::format("{}: none of the formats {} recognises it", file.path.string(), format_names()));
}

Content read_file(const std::filesystem::path& path, std::string_view name,
                  const ReadOptions& options) {
  for (const auto& variable : options.variables) variable_number(variable);
  const Format* format = nullptr;
  if (name != "auto") {
    const auto found = registry().find(std::string(name));
    HALCYON_CHECK(found != registry().end(), "observations",
                  "expected the format auto, {}, got \"{}\"", format_names(), name);
    format = &found->second;
  }
  const auto file = open_file(path);
  if (const auto wide = wide_text_fault(file.head); wide && !file.netcdf)
    throw_error(ErrorKind::input, "observations", fmt::format("{}: {}", path.string(), wide->what));
  if (!format) format = &detect_format(file);
  HALCYON_CHECK_KIND(format->recognises(file), input, "observations", "{}: not of the format {}",
                     path.string(), name);
  Content content;
  try {
    content = format->read(file, options);
    check_observations(content.table, "observations");
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::input) throw;
    throw Error(ErrorKind::input, fmt::format("{} ({})", e.what(), path.string()));
  }
  content.format = format->name;
  return content;
}

std::vector<std::filesystem::path> expand(const std::vector<std::string>& patterns) {
  std::set<std::filesystem::path> found;
  for (const auto& pattern : patterns) {
    const auto files = matching_files(pattern);
    HALCYON_CHECK_KIND(!files.empty(), input, "observations", "{}: no {}", pattern,
                       looks_like_pattern(pattern) ? "file matches" : "such file");
    found.insert(files.begin(), files.end());
  }
  return {found.begin(), found.end()};
}

Table read_files(const std::vector<std::filesystem::path>& files, std::string_view format,
                 const ReadOptions& options) {
  std::vector<Table> tables;
  tables.reserve(files.size());
  for (const auto& file : files) tables.push_back(read_file(file, format, options).table);
  return Table::concat(tables);
}

}  // namespace halcyon::obs
