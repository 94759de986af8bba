// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>

#include "halcyon/obs/table.h"

namespace halcyon::obs {

// What the bias of each station and variable is, for each month and hour of the day (UTC), and the
// variance of the errors that remain. Departures are observation minus background, the background
// being any field interpolated to the station. Learned from even days only (split.h), so that odd
// days can be scored: rows of other days are refused. A row that says again what an earlier one
// says (same_station.h) counts once.
class StationBias {
 public:
  // departure (rows,), floating, in the units of value; NaN rows are left out. Means and variances
  // (with the number of rows as divisor) are summed in double. Error(argument) when a row is not of
  // an even day.
  static StationBias fit(const Table& table, const at::Tensor& departure);

  struct Applied {
    Table table;       // value less the bias; columns bias and error_sd set
    at::Tensor codes;  // int32 (rows of the input,): kept or no_bias_statistics
  };
  // Rows for whose station, variable, month and hour there is no statistic are left out of the
  // table and coded. error_sd becomes the square root of the station's error variance.
  Applied apply(const Table& table) const;

  // bias and error variance; NaN where nothing is known.
  double bias(const std::string& station, int32_t variable, int month, int hour) const;
  double variance(const std::string& station, int32_t variable) const;

  // Rows and days that the statistics were made from: first and last, ns since 1970.
  int64_t fitted_rows() const { return rows_; }
  std::pair<int64_t, int64_t> fitted_span() const { return {first_, last_}; }

  // Everything, with names for variables; from_json throws Error(input) on what it cannot be.
  nlohmann::json to_json() const;
  static StationBias from_json(const nlohmann::json& json);

 private:
  struct Station {
    std::array<double, 12 * 24> bias;  // by month and hour; NaN where nothing is known
    double variance;
  };
  using Key = std::pair<std::string, int32_t>;
  const Station* find(const std::string& station, int32_t variable) const;

  std::map<Key, Station> stations_;
  int64_t rows_ = 0, first_ = 0, last_ = 0;
};

}  // namespace halcyon::obs
