// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <span>

#include "halcyon/base/input_file.h"

// For the sources of netcdf.h only.
namespace halcyon::netcdf_detail {

// The one lock around netcdf-c and HDF5.
std::recursive_mutex& library_lock();

// The bytes of a file on disk or in memory.
struct Bytes {
  explicit Bytes(const InputFile& file);
  explicit Bytes(std::span<const std::byte> memory);
  std::uint64_t size;
  std::function<void(std::uint64_t offset, std::span<std::byte> into)> read;
};

// Throws Error(input) unless the bytes begin like a NetCDF file; a classic file's header is checked
// as below. True for a NetCDF-4 (HDF5) file.
bool check_magic(const Bytes& file, const std::filesystem::path& name);

// Throws Error(input) unless the classic file's header is whole and every variable that it
// announces lies inside the file: netcdf-c pads a truncated file with zeros.
void check_classic_header(const Bytes& file, const std::filesystem::path& name);

// HDF5 1.10 follows unchecked offsets of a corrupt file's heap to a crash or an endless loop. So a
// child process reads such a file first, open() being nc_open or nc_open_mem; Error(input) when it
// does not come back. Called with the library's lock held.
void check_hdf5(const std::function<int(int*)>& open, const std::filesystem::path& name);

}  // namespace halcyon::netcdf_detail
