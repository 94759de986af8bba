// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace halcyon::assimilation {

// What became of one observation in one analysis.
struct FeedbackRow {
  static constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();
  int64_t analysis_time, time;  // seconds since 1970 UTC
  std::string station;
  double lat, lon;        // degrees
  float value;            // as reported
  float bias = kMissing;  // taken off before use
  float climatology = kMissing,
        analysis = kMissing;  // at the place; analysis valid at analysis_time
  float error_sd = kMissing;  // assumed
  int32_t reason = 0;         // 0: used; else the code of quality control
  bool current = false;       // its time is the analysis time, within the tolerance of the run
};

// Observation minus climatology (O-B) and minus analysis (O-A), after bias correction, over the
// used rows that are current.
struct FeedbackSummary {
  int64_t rows = 0, used = 0;
  double mean_ob = 0, rmse_ob = 0, mean_oa = 0, rmse_oa = 0;
};
FeedbackSummary summary(const std::vector<FeedbackRow>& rows);

// NetCDF with one dimension obs; reason codes are a CF flag variable with the names as
// flag_meanings (reasons[0] is "used"). units are those of the values. Whole or not at all;
// Error(output).
void write_feedback(const std::filesystem::path& path, const std::vector<FeedbackRow>& rows,
                    const std::string& variable, const std::string& units,
                    const std::vector<std::string>& reasons,
                    const std::vector<std::pair<std::string, std::string>>& attributes);

}  // namespace halcyon::assimilation
