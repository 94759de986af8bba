// SPDX-License-Identifier: Apache-2.0
#include "apps/halcyon/pictures.h"

#include <algorithm>
#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/plots/graphs.h"
#include "halcyon/plots/map.h"

namespace halcyon::cli {

namespace {

constexpr double kZeroCelsius = 273.15;

double corrected(const assimilation::FeedbackRow& row) {
  return row.value - (std::isnan(row.bias) ? 0 : row.bias);
}

// The report beside it that counts is drawn.
bool said_by_another(const assimilation::FeedbackRow& row) {
  return row.reason == static_cast<int32_t>(obs::Reason::duplicate) ||
         row.reason == static_cast<int32_t>(obs::Reason::not_nearest);
}

// The stations that the last analysis used at its own time, with what value makes of their rows.
template <class Value>
std::vector<plots::MapStation> stations_of(const assimilation::Analysis& analysis, Value value) {
  std::vector<plots::MapStation> stations;
  for (const auto& row : analysis.feedback) {
    if (row.reason == 0 && row.current && row.analysis_time == analysis.grid.times.back()) {
      stations.push_back({row.lon, row.lat, value(row)});
    }
  }
  return stations;
}

plots::SeriesPlot series_of(const assimilation::AnalysisConfig& config,
                            const assimilation::Analysis& analysis, const std::string& station,
                            const std::string& units, double zero) {
  plots::TimeSeries observed{
      config.bias_period ? "reported, less station bias" : "reported", {}, {}, true},
      analysed{"analysis", {}, {}, false}, mean{"climatology", {}, {}, false};
  for (const auto& row : analysis.feedback) {
    if (row.station != station || !row.current || said_by_another(row)) continue;
    for (auto* series : {&observed, &analysed, &mean}) series->times.push_back(row.time);
    observed.values.push_back(corrected(row) - zero);
    analysed.values.push_back(row.analysis - zero);
    mean.values.push_back(row.climatology - zero);
  }
  HALCYON_CHECK_KIND(
      !observed.times.empty(), configuration, "plots",
      "series_station: expected a station that reports at the analysis times, got {}", station);
  const bool withheld =
      std::find(config.withheld.begin(), config.withheld.end(), station) != config.withheld.end();
  return {station,
          withheld ? "withheld from the analysis" : "used by the analysis",
          units,
          {analysed, mean, observed}};
}

}  // namespace

std::vector<std::filesystem::path> draw_analysis(const assimilation::AnalysisConfig& config,
                                                 const assimilation::Analysis& analysis,
                                                 const std::optional<std::string>& station) {
  const bool kelvin =
      config.system->variable.units == "K" || config.system->variable.units == "degK";
  const double zero = kelvin ? kZeroCelsius : 0;
  std::string units = config.system->variable.units;
  if (kelvin) units = "degC";
  const auto last = static_cast<int64_t>(analysis.grid.times.size()) - 1;
  const auto when = format_time(analysis.grid.times.back());
  std::vector<std::filesystem::path> paths{config.output / "analysis.png",
                                           config.output / "departure.png"};

  plots::MapPlot map;
  map.title = config.system->name + ": analysis";
  map.subtitle = fmt::format("{}, {} reports", when, analysis.used.back());
  map.units = units;
  map.grid = analysis.grid.grid;
  map.field = analysis.grid.data[last][0] - zero;
  map.stations = stations_of(analysis, [&](const auto& row) { return corrected(row) - zero; });
  plots::plot_map(paths[0], map);

  map.title = config.system->name + ": analysis minus climatology";
  map.units = config.system->variable.units;
  map.field = analysis.departure.data[last][0];
  map.palette = plots::Palette::difference;
  map.stations =
      stations_of(analysis, [](const auto& row) { return corrected(row) - row.climatology; });
  plots::plot_map(paths[1], map);

  if (station) {
    paths.push_back(config.output / "series.png");
    plots::plot_series(paths.back(), series_of(config, analysis, *station, units, zero));
  }
  return paths;
}

}  // namespace halcyon::cli
