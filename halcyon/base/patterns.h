// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <vector>

namespace halcyon {

// The files and folders that a name or pattern stands for, in alphabetical order; none is no error.
// A name that exists is that file, whatever characters it has; only what does not exist is a
// pattern of *, ? and [..], in which \ takes their meaning from them. This holds for each folder on
// the way too. A wildcard at the beginning of a name does not stand for a dot.
std::vector<std::filesystem::path> matching_files(const std::filesystem::path& pattern);

// Whether the text has characters of a pattern.
bool looks_like_pattern(const std::filesystem::path& name);

}  // namespace halcyon
