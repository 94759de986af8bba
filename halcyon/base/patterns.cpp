// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/patterns.h"

#include <fnmatch.h>

#include <algorithm>

namespace halcyon {
namespace fs = std::filesystem;

namespace {

using Parts = std::vector<fs::path>;

std::vector<fs::path> entries(const fs::path& folder, const fs::path& pattern) {
  std::vector<fs::path> found;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(folder.empty() ? "." : folder, unreadable)) {
    const auto name = entry.path().filename();
    if (::fnmatch(pattern.c_str(), name.c_str(), FNM_PERIOD) == 0) found.push_back(folder / name);
  }
  std::sort(found.begin(), found.end(),
            [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  return found;
}

std::vector<fs::path> matches(const fs::path& folder, Parts::const_iterator part,
                              Parts::const_iterator end) {
  if (part == end) return {folder};
  std::error_code ignored;
  if (const auto named = folder / *part; fs::exists(fs::symlink_status(named, ignored))) {
    auto found = matches(named, part + 1, end);
    if (!found.empty()) return found;
  }
  std::vector<fs::path> all;
  if (!looks_like_pattern(*part)) return all;
  for (const auto& entry : entries(folder, *part)) {
    if (part + 1 != end && !fs::is_directory(entry, ignored)) continue;
    const auto found = matches(entry, part + 1, end);
    all.insert(all.end(), found.begin(), found.end());
  }
  return all;
}

}  // namespace

std::vector<fs::path> matching_files(const fs::path& pattern) {
  if (pattern.empty()) return {};
  const auto relative = pattern.relative_path();
  const Parts parts(relative.begin(), relative.end());
  return matches(pattern.root_path(), parts.begin(), parts.end());
}

bool looks_like_pattern(const fs::path& name) {
  return name.native().find_first_of("*?[\\") != std::string::npos;
}

}  // namespace halcyon
