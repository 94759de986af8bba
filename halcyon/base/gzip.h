// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace halcyon {

// Whether the bytes begin like a gzip file (RFC 1952).
bool is_gzip(std::span<const std::byte> bytes);

// Unpacks a gzip file held in memory, of one or more members. Throws Error(input) naming the file
// when it is truncated or corrupt (lengths and CRC are verified) or unpacks to more than limit
// bytes.
std::vector<std::byte> gunzip(std::span<const std::byte> bytes, const std::filesystem::path& name,
                              std::size_t limit = std::size_t{1} << 30);

}  // namespace halcyon
