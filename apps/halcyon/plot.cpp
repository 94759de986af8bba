// SPDX-License-Identifier: Apache-2.0
// halcyon plot FILE: a picture of what the other subcommands write.
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <memory>
#include <optional>

#include "apps/halcyon/commands.h"
#include "halcyon/base/cf_time.h"
#include "halcyon/base/csv.h"
#include "halcyon/base/error.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/time.h"
#include "halcyon/plots/graphs.h"
#include "halcyon/plots/map.h"
#include "halcyon/state/read_fields.h"

namespace halcyon::cli {

namespace {

namespace fs = std::filesystem;

struct Arguments {
  fs::path file, output;
  std::string variable, time, station;
  std::vector<std::string> columns;
  std::optional<plots::Palette> palette;
};

// Forecasters read Celsius; a difference stays as it is.
struct Scale {
  std::string units;
  double zero = 0;
};

Scale scale_of(const std::string& units, bool difference) {
  if (difference || (units != "K" && units != "degK" && units != "kelvin")) return {units, 0};
  return {"\u00b0C", 273.15};
}

void plot_fields(const Arguments& arguments) {
  state::ReadOptions options;
  if (!arguments.variable.empty()) options.variables = {arguments.variable};
  if (!arguments.time.empty()) options.times = {{parse_time(arguments.time)}};
  const auto fields = state::read_fields(arguments.file, options);
  const auto& variable = fields.variables.front();
  const bool difference = arguments.palette == plots::Palette::difference;
  const auto [units, zero] = scale_of(variable.units, difference);

  plots::MapPlot plot;
  plot.title = variable.long_name.empty() ? variable.name : variable.long_name;
  plot.subtitle = arguments.file.filename().string();
  if (!fields.is_static()) plot.subtitle = format_time(fields.times.back()) + ", " + plot.subtitle;
  plot.units = units;
  plot.grid = fields.grid;
  plot.field = fields.data[fields.data.size(0) - 1][0] - zero;
  plot.palette =
      arguments.palette.value_or(zero == 0 ? plots::Palette::plain : plots::Palette::temperature);
  plots::plot_map(arguments.output, plot);
}

// A station's corrected reports at the analysis times, beside analysis and climatology.
void plot_feedback(const Arguments& arguments, const NetcdfReader& file) {
  const auto stations = file.read_strings("station");
  const auto time = read_cf_time(file, "time"), analysis_time = read_cf_time(file, "analysis_time");
  const auto column = [&](const char* name) { return file.read_physical(name, at::kDouble); };
  const auto analysis = column("analysis"), climatology = column("climatology"),
             departure = column("oa");
  const auto used = file.has("reason") ? file.read("reason").eq(0) : at::ones_like(departure).gt(0);
  std::map<std::string, std::map<int64_t, int64_t>> rows;  // of a station, by time
  for (int64_t row = 0; row < time.size(0); ++row) {
    if (!time[row].equal(analysis_time[row]) || !std::isfinite(departure[row].item<double>()))
      continue;
    auto& of_station = rows[stations[static_cast<std::size_t>(row)]];
    const auto [place, fresh] = of_station.emplace(time[row].item<int64_t>(), row);
    // of several at one time the one that was used, else the first
    if (!fresh && used[row].item<bool>() && !used[place->second].item<bool>()) place->second = row;
  }
  HALCYON_CHECK_KIND(!rows.empty(), input, "plot",
                     "{}: expected observations at the analysis times, got none",
                     arguments.file.string());
  const auto fullest = std::max_element(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a.second.size() < b.second.size();
  });
  const auto chosen = arguments.station.empty() ? fullest : rows.find(arguments.station);
  std::vector<std::string> names;
  names.reserve(rows.size());
  for (const auto& [name, unused] : rows) names.push_back(name);
  HALCYON_CHECK_KIND(chosen != rows.end(), input, "plot", "{}: expected one of the stations {}",
                     arguments.file.string(), fmt::join(names, ", "));

  const auto [units, zero] = scale_of(file.text("analysis", "units").value_or(""), false);
  plots::TimeSeries observed{"observed", {}, {}, true}, analysed{"analysis", {}, {}, false},
      mean{"climatology", {}, {}, false};
  for (const auto& [when, row] : chosen->second) {
    for (auto* series : {&observed, &analysed, &mean}) series->times.push_back(when);
    const double value = analysis[row].item<double>();
    observed.values.push_back(value + departure[row].item<double>() - zero);
    analysed.values.push_back(value - zero);
    mean.values.push_back(climatology[row].item<double>() - zero);
  }
  plots::plot_series(
      arguments.output,
      {chosen->first, arguments.file.filename().string(), units, {analysed, mean, observed}});
}

void plot(Arguments arguments) {
  if (arguments.output.empty()) {
    arguments.output = arguments.file;
    arguments.output.replace_extension(".png");
  }
  if (arguments.file.extension() == ".csv") {
    const auto table = read_csv(arguments.file);
    if (table.header.front() == "protocol")
      plots::plot_scores(arguments.output, verify::read_score_table(arguments.file), "Scores");
    else
      plots::plot_curves(arguments.output, plots::curves_of_log(arguments.file, arguments.columns));
  } else {
    const NetcdfReader file(arguments.file);
    if (file.has("oa") && file.has("station"))
      plot_feedback(arguments, file);
    else
      plot_fields(arguments);
  }
  std::cout << arguments.output.string() << '\n';
}

}  // namespace

void add_plot(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  auto* command = app.add_subcommand(
      "plot",
      "Draw a file: gridded NetCDF as a map, a feedback file as a station's series, a training log "
      "(CSV) as curves, a table of scores (CSV) as bars");
  command->add_option("FILE", arguments->file, "a .nc or .csv file")->required();
  command->add_option("-o,--output", arguments->output, "the .png file (default: beside FILE)");
  command->add_option("--variable", arguments->variable, "of a map (default: the first)");
  command->add_option("--time", arguments->time, "of a map, ISO 8601 (default: the last)");
  command->add_option("--station", arguments->station, "of a series (default: the fullest)");
  command->add_option("--columns", arguments->columns, "of curves (default: all losses)");
  command
      ->add_option("--palette", arguments->palette,
                   "of a map: temperature, difference or plain (default: by the units)")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, plots::Palette>{{"temperature", plots::Palette::temperature},
                                                {"difference", plots::Palette::difference},
                                                {"plain", plots::Palette::plain}}));
  command->callback([arguments] { plot(*arguments); });
}

}  // namespace halcyon::cli
