// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "halcyon/obs/table.h"

namespace halcyon::obs {

// Writes a table as Halcyon's own NetCDF-4 file, the format "halcyon" of reader.h. Dimension row;
// one variable a column, named so, with its units (missing numbers are NaN, a missing time is
// _FillValue). variable and platform are numbers into the names of their attribute flag_meanings
// (CF), so that files outlive the lists of variables.h. A text column is int32 numbers into the
// strings NAME_names along the dimension NAME_names; bool columns come back as int8. attributes are
// added to the file's own. Atomic; Error(output) when it cannot be written.
void write_observations(const std::filesystem::path& path, const Table& table,
                        const std::map<std::string, std::string>& attributes = {});

// Writes a table as CSV, one line a row: time (ISO 8601), then the other columns by name with names
// in place of numbers; numbers in the shortest form that reads back the same, missing ones empty.
void write_csv(const std::filesystem::path& path, const Table& table);

}  // namespace halcyon::obs
