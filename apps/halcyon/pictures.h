// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halcyon/assimilation/analysis_run.h"

namespace halcyon::cli {

// The pictures of an analysis run, in its output folder: the last analysis with the stations that
// it used, its departure from climatology, and, where a station is named, that station's reports
// beside analysis and climatology over all times. Returns their paths.
std::vector<std::filesystem::path> draw_analysis(const assimilation::AnalysisConfig& config,
                                                 const assimilation::Analysis& analysis,
                                                 const std::optional<std::string>& station);

}  // namespace halcyon::cli
