// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "halcyon/obs/table.h"

namespace halcyon::assimilation {

// What is done with several reports of a station that an analysis sees at one age. They share most
// of their error, so all of them at full weight would count their station several times.
enum class SeveralReports {
  nearest,  // the one nearest to the age is used
  inflate   // n reports are used, each with sqrt(n) times its error
};

// A report, and how far its age is from the one that was wanted, in seconds.
struct Candidate {
  int64_t row, distance;
};

// For each candidate how many of them are of its station and variable, itself included, where it is
// the nearest of these; less than 0, -n, where another is. Ties: the earlier one, then the first
// row.
std::vector<int64_t> count_of_station(const obs::Table& table,
                                      const std::vector<Candidate>& candidates);

// The reports that an analysis sees.
struct Window {
  std::vector<int64_t> row;
  std::vector<int32_t> reason;    // not_nearest where another report of the station is used
  std::vector<double> inflation;  // of the error
};

struct WindowRules {
  std::vector<int64_t> ages;  // seconds
  int64_t tolerance;          // of a report's age
  SeveralReports several = SeveralReports::nearest;
};

// Rows of the table in order whose age is within the tolerance of one of the ages, with their
// reason so far. Those that are used compete for the age nearest to theirs; so do those of withheld
// stations (blocked_station) whose value is good, so that each verifies the analysis once.
Window window_of(const obs::Table& table, std::span<const int64_t> seconds,
                 std::span<const int32_t> reason, int64_t analysis_time, const WindowRules& rules);

}  // namespace halcyon::assimilation
