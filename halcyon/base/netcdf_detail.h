// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// For the sources of netcdf.h only.
namespace halcyon::netcdf_detail {

// The one lock around netcdf-c and HDF5.
std::recursive_mutex& library_lock();

// Throws Error(input) unless the bytes begin like a NetCDF file; a classic file's header is checked
// as below. True for a NetCDF-4 (HDF5) file.
bool check_magic(std::span<const std::byte> file, const std::filesystem::path& name);

// Throws Error(input) unless the classic file's header is whole and every variable that it
// announces lies inside the file: netcdf-c pads a truncated file with zeros.
void check_classic_header(std::span<const std::byte> file, const std::filesystem::path& name);

// HDF5 1.10 follows unchecked offsets of a corrupt file's heap to a crash or an endless loop. So a
// child process reads such a file first, open() being nc_open or nc_open_mem; Error(input) when it
// does not come back. Called with the library's lock held.
void check_hdf5(const std::function<int(int*)>& open, const std::filesystem::path& name);

// Text as UTF-8: what is not so already is taken for Windows-1252.
std::string in_utf8(std::string text);

// The same for a variable's text, whose encoding its attribute _Encoding may name; a guess is
// logged. Error(input) for an encoding that is not known.
void make_utf8(std::vector<std::string>& values, const std::optional<std::string>& encoding,
               const std::filesystem::path& file, std::string_view variable);

}  // namespace halcyon::netcdf_detail
