// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>

namespace halcyon {

// Where path leads: behind its symbolic links, also to a file that is not there yet. Throws
// Error(output) for links that lead in a circle.
std::filesystem::path behind_links(const std::filesystem::path& path);

// The folder that path will lie in is there and can be written to, made where it was not: asked
// before long work whose result goes there. Throws Error(output).
void prepare_folder_of(const std::filesystem::path& path);

// Calls write(temporary path in the same folder), flushes the file to disk and renames it to path,
// so that path holds either the old content or the whole new one. A symbolic link stays one: the
// file that it leads to is replaced, or made. Owner and permissions of the old file are kept as far
// as the process may. On any failure the temporary file is removed and Error(output) is thrown (an
// Error from write() passes through), also where path is a folder or a device.
void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path&)>& write);

// The content as given, atomically.
void write_text(const std::filesystem::path& path, std::string_view text);

// Throws Error(input) when the file is unreadable or larger than limit bytes.
std::string read_text(const std::filesystem::path& path, std::size_t limit = std::size_t{1} << 30);

// Lower-case hexadecimal SHA-256 of the file (FIPS 180-4).
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace halcyon
