// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "halcyon/plots/magics.h"

// What the plots with two axes share. Times and logarithms are turned into plain numbers here, and
// the labels written out, so that the axes of Magics need to know nothing of them.
namespace halcyon::plots {

struct GraphAxis {
  std::string title;
  double low = 0, high = 1;
  std::vector<double> ticks;
  std::vector<std::string> labels;  // one a tick
  bool grid = true;
};

// Round ticks; the ends are ticks too.
GraphAxis number_axis(std::string title, double low, double high, int count = 8);
// Of the logarithms to base 10 of positive numbers; labels are the numbers.
GraphAxis logarithm_axis(std::string title, double low, double high);
// Of days since 1970; ticks at hours, days, months or years, whichever suit the span.
GraphAxis time_axis(double low, double high);

// A shortest text of a tick's number, given the distance of ticks.
std::string tick_label(double value, double step);

// Page, axes, titles; draw adds the curves or bars.
void draw_graph(const std::filesystem::path& path, const std::string& title,
                const std::string& subtitle, const GraphAxis& x, const GraphAxis& y,
                const std::function<void(Magics&)>& draw);

struct LineStyle {
  std::string colour;
  int thickness = 4;
  bool dots = false;  // dots instead of a line
};

// A line through the points, interrupted where one is not finite; named in the legend unless the
// name is empty.
void draw_line(Magics& page, const std::vector<double>& x, const std::vector<double>& y,
               const LineStyle& style, const std::string& name);

}  // namespace halcyon::plots
