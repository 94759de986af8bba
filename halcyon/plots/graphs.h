// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halcyon/verify/score_table.h"

// PNG graphs. Values that are not finite are gaps. Error(argument) when there is nothing to show or
// lengths differ, Error(output) when the file cannot be written.
namespace halcyon::plots {

struct TimeSeries {
  std::string name;
  std::vector<int64_t> times;  // seconds since 1970, ascending
  std::vector<double> values;
  bool dots = false;  // observations: dots instead of a line
};

struct SeriesPlot {
  std::string title, subtitle, units;
  std::vector<TimeSeries> series;
};

// Observed, analysed and climatological values over time.
void plot_series(const std::filesystem::path& path, const SeriesPlot& plot);

struct Curve {
  std::string name;
  std::vector<double> x, y;
};

struct CurvesPlot {
  std::string title, subtitle, x_title, y_title;
  std::vector<Curve> curves;
  // Nothing: logarithmic when all values are positive and span more than a factor of 20.
  std::optional<bool> logarithmic = std::nullopt;
};

void plot_curves(const std::filesystem::path& path, const CurvesPlot& plot);

// The columns of a training log (CSV) against its column "step" (else its first one): those given,
// else those with "loss" in their names. Error(input) when there is none.
CurvesPlot curves_of_log(const std::filesystem::path& csv,
                         const std::vector<std::string>& columns = {});

// One group of bars a protocol, one bar an analyser, with the intervals.
void plot_scores(const std::filesystem::path& path, const verify::ScoreTable& table,
                 const std::string& title);

}  // namespace halcyon::plots
