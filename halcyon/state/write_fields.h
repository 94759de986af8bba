// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "halcyon/state/fields.h"

namespace halcyon::state {

// The file's own attributes; empty ones are left out. Anything else (a run's provenance) goes into
// more, as name and text.
struct ProductAttributes {
  std::string title, institution, source, history, references, comment;
  std::vector<std::pair<std::string, std::string>> more = {};
};

// Writes NetCDF-4 after CF-1.13, compressed, whole or not at all. On a latitude-longitude grid the
// variables have the dimensions (time, lat, lon); on HEALPix (time, pixel) with the grid mapping
// crs: pixel holds the numbers in nested order, lat and lon the centres. Missing values are written
// as _FillValue. Errors are Error(output).
void write_fields(const std::filesystem::path& path, const Fields& fields,
                  const ProductAttributes& attributes = {});

}  // namespace halcyon::state
