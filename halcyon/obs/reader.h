// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "halcyon/base/netcdf.h"
#include "halcyon/obs/table.h"

// Files of observations, one source file a format; each registers itself by name.
namespace halcyon::obs {

// A file that is looked at: its first bytes (unpacked), and the open file where it is NetCDF.
struct OpenFile {
  std::filesystem::path path;
  std::string head;                      // up to 64 KiB, without a byte order mark
  std::shared_ptr<NetcdfReader> netcdf;  // null for anything else
};

struct ReadOptions {
  std::vector<std::string> variables;  // names of variables.h; empty: all that the file has
  // The table of stations that belongs to a file without positions; empty: looked for beside it.
  std::filesystem::path stations;
};

struct Content {
  std::string format;
  Table table;                             // a row for each value that is there
  std::map<std::string, int64_t> missing;  // by variable: values that the file marks as missing
};

struct Format {
  std::string name, description;
  std::function<bool(const OpenFile&)> recognises;  // by content, never by the file's name
  std::function<Content(const OpenFile&, const ReadOptions&)> read;
};

// Called by each reader's source file before main. The name must be new.
bool register_format(Format format);
// In alphabetical order.
std::vector<const Format*> formats();

// Error(input) naming the file: it cannot be read, is truncated or corrupt.
OpenFile open_file(const std::filesystem::path& path);
// The format that recognises the file; Error(input) listing all formats when none does.
const Format& detect_format(const OpenFile& file);

// Reads a file of the format named ("auto": whatever recognises it). Error(input) naming file and
// reason for anything wrong in the file, Error(argument) for an unknown format or variable.
Content read_file(const std::filesystem::path& path, std::string_view format = "auto",
                  const ReadOptions& options = {});

// The files that names and patterns stand for (base/patterns.h), sorted, each once. Error(input)
// for one that matches nothing.
std::vector<std::filesystem::path> expand(const std::vector<std::string>& patterns);

// All files one after the other in one table.
Table read_files(const std::vector<std::filesystem::path>& files, std::string_view format = "auto",
                 const ReadOptions& options = {});

}  // namespace halcyon::obs
