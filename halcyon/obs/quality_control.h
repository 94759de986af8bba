// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "halcyon/obs/table.h"
#include "halcyon/sphere/region.h"

// Every row gets a reason code: 0 where it is kept, else the first rule that it broke.
namespace halcyon::obs {

enum class Reason : int32_t {
  kept,
  not_finite,           // the value is NaN or infinite
  outside_valid_range,  // of its variable or channel
  provider_flag,        // the provider of the file rejected it
  pressure,             // unknown or outside what is used
  height,
  report_type,       // a type of report that is not used for this channel
  channel_dropped,   // the configuration leaves the variable or channel out
  outside_window,    // of the analysis
  outside_region,    // of the model
  unknown_platform,  // a number outside the list
  unknown_channel,
  duplicate,           // says again what an earlier row says that is kept (same_station.h)
  position,            // no or an impossible latitude or longitude
  time,                // no time
  gross_departure,     // too far from the background
  blocked_station,     // the configuration leaves the station out
  no_bias_statistics,  // nothing is known about the station's bias (bias.h)
  not_nearest          // another report of the station is nearer to the age that is wanted
};

// The codes' names by number; [0] is "kept".
std::span<const std::string_view> qc_reasons();

// The rules of HealDA's training data, for satellite and conventional channels in one (N,) table:
// a row is kept when Observation is finite and within [min_valid, max_valid] and, for satellites
// (is_conv false), with qc_filter, QC_Flag is 0; for conventional data, Pressure is within 0.5
// (GPS, local_channel_id <= 2) or 200 to 1100 hPa, Height within 0 to 60000 m, with qc_filter
// Analysis_Use_Flag is 1, with uv_in_situ_only wind (local_channel_id 6, 7) has an
// Observation_Type of 220, 221, 229-235, 280 or 282, and with gps_level1_only local_channel_id is
// not 1 or 2. Columns are named so; those that no row needs may be absent. Rank 1, equal lengths,
// any device. Returns int32 (N,) on Observation's device.
struct ChannelRules {
  bool qc_filter = false;
  bool conv_uv_in_situ_only = false;
  bool conv_gps_level1_only = false;
};
at::Tensor quality_control(const std::map<std::string, at::Tensor>& columns,
                           const ChannelRules& rules = {});

// Quality control of surface observations in a table. Rules whose member is empty do not apply.
struct SurfaceRules {
  std::vector<std::string> variables;         // the ones used
  std::vector<std::string> blocked_stations;  // never used, nor rows without identifier there
  std::optional<int64_t> begin, end;          // seconds since 1970: begin < time <= end
  std::optional<Region> region;               // the row's pixel at the region's level is in it
  std::map<std::string, std::array<double, 2>> range;  // by variable, instead of variables.h
  bool accept_suspect = false;                         // provider flags
  bool accept_repaired = true;
  bool accept_unchecked = true;
  std::optional<double> max_height;  // m; a row without height passes
  bool drop_duplicates = true;
  // |value - background| > gross_limit * sqrt(error_sd^2 + background_sd^2) is a gross departure;
  // the columns background (float32, as value) and background_sd must be there.
  std::optional<double> gross_limit;
};
at::Tensor quality_control(const Table& table, const SurfaceRules& rules);

// Rows by reason, one entry for each code.
std::vector<int64_t> count_reasons(const at::Tensor& codes);

// Lines of text: a row for each variable of the table and one for all, a column for each reason
// that occurs.
std::string reason_table(const Table& table, const at::Tensor& codes);

}  // namespace halcyon::obs
