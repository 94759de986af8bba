// SPDX-License-Identifier: Apache-2.0
#include "halcyon/plots/graphs.h"

#include <magics_api.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "halcyon/base/csv.h"
#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/plots/colours.h"
#include "halcyon/plots/graph.h"

namespace halcyon::plots {
namespace {

struct Extent {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
  // a little air, so that lines do not lie on the frame
  Extent widened() const { return {low - 0.04 * (high - low), high + 0.04 * (high - low)}; }
};

void check_shown(bool something, const char* operation) {
  HALCYON_CHECK(something, operation, "expected finite values to show, got none");
}

std::size_t place(std::vector<std::string>& names, const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) names.push_back(name);
  return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
}

void draw_bar(Magics& page, double x, double width, double height, const std::string& colour,
              const std::string& name) {
  page.set("graph_type", "bar");
  page.set("graph_bar_x_values", std::vector<double>{x});
  page.set("graph_bar_y_lower_values", std::vector<double>{0.0});
  page.set("graph_bar_y_upper_values", std::vector<double>{height});
  page.set("graph_bar_width", width);
  page.set("graph_bar_colour", colour);
  page.set("graph_bar_line_colour", colour);
  page.set("graph_shade", true);
  page.set("legend", !name.empty());
  page.set("legend_user_text", escaped(name));
  page.set("legend_text_composition", "user_text_only");
  mag_graph();
}

}  // namespace

void plot_series(const std::filesystem::path& path, const SeriesPlot& plot) {
  constexpr const char* operation = "plot_series";
  Extent times, values;
  for (const auto& one : plot.series) {
    HALCYON_CHECK(one.times.size() == one.values.size(), operation,
                  "expected {} values of {}, got {}", one.times.size(), one.name,
                  one.values.size());
    for (std::size_t i = 0; i < one.times.size(); ++i) {
      HALCYON_CHECK(i == 0 || one.times[i - 1] < one.times[i], operation,
                    "expected ascending times of {}", one.name);
      times.add(static_cast<double>(one.times[i]) / 86400);
      values.add(one.values[i]);
    }
  }
  check_shown(!times.empty() && !values.empty(), operation);
  const Extent shown = values.widened();
  draw_graph(path, plot.title, plot.subtitle, time_axis(times.low, times.high),
             number_axis(plot.units, shown.low, shown.high), [&](Magics& page) {
               std::size_t number = 0;
               for (const auto& one : plot.series) {
                 std::vector<double> days;
                 days.reserve(one.times.size());
                 for (const int64_t time : one.times)
                   days.push_back(static_cast<double>(time) / 86400);
                 const LineStyle style{.colour = line_colour(number++), .dots = one.dots};
                 draw_line(page, days, one.values, style, one.name);
               }
             });
}

void plot_curves(const std::filesystem::path& path, const CurvesPlot& plot) {
  constexpr const char* operation = "plot_curves";
  Extent x, y;
  for (const auto& curve : plot.curves) {
    HALCYON_CHECK(curve.x.size() == curve.y.size(), operation, "expected {} values of {}, got {}",
                  curve.x.size(), curve.name, curve.y.size());
    for (const double value : curve.x) {
      HALCYON_CHECK(std::isfinite(value), operation, "expected finite {} of {}", plot.x_title,
                    curve.name);
      x.add(value);
    }
    for (const double value : curve.y) y.add(value);
  }
  check_shown(!x.empty() && !y.empty(), operation);
  const bool logarithmic = plot.logarithmic.value_or(y.low > 0 && y.high > 20 * y.low);
  HALCYON_CHECK(!logarithmic || y.low > 0, operation,
                "expected values above 0 on a logarithmic axis, got {}", y.low);
  const Extent shown = y.widened();
  const GraphAxis vertical = logarithmic ? logarithm_axis(plot.y_title, y.low, y.high)
                                         : number_axis(plot.y_title, shown.low, shown.high);
  draw_graph(path, plot.title, plot.subtitle, number_axis(plot.x_title, x.low, x.high), vertical,
             [&](Magics& page) {
               std::size_t number = 1;
               for (const auto& curve : plot.curves) {
                 std::vector<double> heights = curve.y;
                 if (logarithmic)
                   for (double& value : heights) value = std::log10(value);
                 draw_line(page, curve.x, heights,
                           {.colour = line_colour(number++), .thickness = 3}, curve.name);
               }
             });
}

CurvesPlot curves_of_log(const std::filesystem::path& csv,
                         const std::vector<std::string>& columns) {
  const Csv table = read_csv(csv);
  const auto step = std::find(table.header.begin(), table.header.end(), "step");
  const auto x =
      static_cast<std::size_t>(step == table.header.end() ? 0 : step - table.header.begin());
  std::vector<std::size_t> wanted;
  wanted.reserve(columns.size());
  for (const auto& name : columns) wanted.push_back(table.column(name));
  if (columns.empty())
    for (std::size_t c = 0; c < table.header.size(); ++c)
      if (c != x && table.header[c].find("loss") != std::string::npos) wanted.push_back(c);
  HALCYON_CHECK_KIND(!wanted.empty() && !table.rows.empty(), input, "curves_of_log",
                     "{}: expected rows and a column with \"loss\" in its name, got {}",
                     csv.string(), fmt::join(table.header, ", "));
  CurvesPlot plot;
  plot.title = "Training: " + csv.filename().string();
  plot.x_title = table.header[x];
  plot.y_title = "loss";
  for (const std::size_t c : wanted) {
    Curve curve{table.header[c], {}, {}};
    for (std::size_t row = 0; row < table.rows.size(); ++row) {
      if (table.rows[row][c].empty()) continue;  // not written at every step
      curve.x.push_back(table.number(row, x));
      curve.y.push_back(table.number(row, c));
    }
    plot.curves.push_back(std::move(curve));
  }
  return plot;
}

void plot_scores(const std::filesystem::path& path, const verify::ScoreTable& table,
                 const std::string& title) {
  constexpr const char* operation = "plot_scores";
  std::vector<std::string> protocols, analysers;
  Extent heights;
  heights.add(0);
  for (const auto& row : table.rows) {
    HALCYON_CHECK(std::isfinite(row.score.value), operation, "expected a finite score of {}",
                  row.analyser);
    place(protocols, row.protocol);
    place(analysers, row.analyser);
    for (const double value : {row.score.value, row.score.low, row.score.high}) heights.add(value);
  }
  check_shown(!table.rows.empty(), operation);
  GraphAxis x;
  x.low = 0;
  x.high = static_cast<double>(protocols.size());
  x.grid = false;
  for (std::size_t p = 0; p < protocols.size(); ++p) {
    x.ticks.push_back(static_cast<double>(p) + 0.5);
    x.labels.push_back(escaped(protocols[p]));
  }
  const verify::ScoreRow& first = table.rows.front();
  const GraphAxis y = number_axis(fmt::format("{} ({})", first.metric, first.units), heights.low,
                                  heights.high * 1.03);
  const double width = 0.8 / static_cast<double>(analysers.size());
  draw_graph(path, title, fmt::format("lines: {:g} % intervals", 100 * first.confidence), x, y,
             [&](Magics& page) {
               std::vector<bool> named(analysers.size());
               for (const auto& row : table.rows) {
                 const std::size_t a = place(analysers, row.analyser);
                 const double centre = static_cast<double>(place(protocols, row.protocol)) + 0.1 +
                                       width * (static_cast<double>(a) + 0.5);
                 draw_bar(page, centre, 0.88 * width, row.score.value, line_colour(a + 1),
                          named[a] ? "" : row.analyser);
                 named[a] = true;
                 draw_line(page, {centre, centre}, {row.score.low, row.score.high},
                           {.colour = "black"}, "");
               }
             });
}

}  // namespace halcyon::plots
