// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "halcyon/base/safetensors.h"
#include "halcyon/state/fields.h"

// How variables and grids stand in our safetensors files: tensors grid.lat and grid.lon, or
// grid.level and grid.pixels; variables as JSON in the metadata.
namespace halcyon::state {

std::string record_of(const std::vector<Variable>& variables);
std::vector<Variable> variables_of(const TensorFile& file, std::string_view name);

void put_grid(TensorFile& file, const Grid& grid);
Grid get_grid(const TensorFile& file, std::string_view name);

}  // namespace halcyon::state
