// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/reader.h"

namespace halcyon::obs {

// What a file holds, for people and programs: format, rows, stations, first and last time, box
// (the narrowest one that holds all positions, which may cross the date line), for each variable
// its units, rows, missing values, minimum, mean and maximum, and the rows by reason code of
// quality control with the rules given.
nlohmann::ordered_json summary(const std::filesystem::path& path, const Content& content,
                               const SurfaceRules& rules = {});

// The summary as lines of text.
std::string summary_text(const nlohmann::ordered_json& summary);

}  // namespace halcyon::obs
