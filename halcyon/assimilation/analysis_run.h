// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "halcyon/assimilation/feedback.h"
#include "halcyon/assimilation/regional_system.h"
#include "halcyon/assimilation/window.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/table.h"
#include "halcyon/ops/tuning/config.h"
#include "halcyon/parallel/group.h"
#include "halcyon/state/fields.h"

namespace halcyon::assimilation {

// What `halcyon analyze` is asked for (docs/north_america.md has every key).
struct AnalysisConfig {
  std::shared_ptr<const RegionalSystem> system;
  std::filesystem::path checkpoint;
  std::string device = "cpu";
  at::ScalarType precision = at::kFloat;  // of weights and activations
  std::vector<std::filesystem::path> observation_files;
  std::string observation_format = "auto";
  std::filesystem::path station_file;          // empty: looked for beside the observations
  obs::SurfaceRules rules;                     // the region is filled in
  std::optional<state::Interval> bias_period;  // station statistics from its even days; else none
  double default_error_sd = 2;                 // of stations without statistics, K
  double gross_limit = 4;        // in standard deviations of observation minus climatology
  int64_t age_tolerance = 1800;  // of a report's age against the system's, seconds
  SeveralReports several_reports = SeveralReports::nearest;  // of a station at one age
  std::vector<std::string> withheld;                         // stations kept out, to verify against
  std::optional<std::string> series_station;                 // whose time series is drawn
  TimeRange times;
  tuning::Config tuning;            // for the program to apply
  std::filesystem::path output;     // folder
  nlohmann::ordered_json resolved;  // for the record

  // Reads and validates the whole configuration; opens no observation.
  static AnalysisConfig from(const config::Node& run);
};

struct Analysis {
  state::Fields grid, pixels;         // on the lat-lon grid and on HEALPix
  state::Fields departure;            // analysis minus climatology on the lat-lon grid
  std::vector<FeedbackRow> feedback;  // every report in a window, used or not
  std::vector<int64_t> used;          // reports that each analysis used
  std::vector<std::string> reasons;   // names of the codes in the feedback
  // By code: every report that was read, once. What nothing else is wrong with, but no analysis
  // wants, is outside_window, or not_nearest where another report of its station was preferred.
  std::vector<int64_t> reports;
};

// Observations to analyses. Times whose window holds no usable report get the analysis of no
// observations, with a warning. Over several ranks, each of which calls it alike, every rank runs
// the network for its share of the times and has the whole analysis: the same bits as one process
// has, where the times of a rank fill its batches.
Analysis analyse(const AnalysisConfig& config,
                 const parallel::Group& group = parallel::Group::alone());

// The products in config.output: analysis_latlon.nc, analysis_healpix.nc, feedback.nc and run.json
// (the record: arguments, resolved configuration, checkpoint and input hashes, versions, counts).
// Each is written whole or not at all; returns their paths.
std::vector<std::filesystem::path> write_products(const AnalysisConfig& config,
                                                  const Analysis& analysis,
                                                  const std::string& command_line);

}  // namespace halcyon::assimilation
