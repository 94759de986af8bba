// SPDX-License-Identifier: Apache-2.0
#include "halcyon/plots/graph.h"

#include <magics_api.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/plots/colours.h"

namespace halcyon::plots {
namespace {

constexpr double kWidth = 26, kHeight = 13, kLeft = 2.3, kRight = 0.8, kBottom = 1.8, kTop = 2.7;

constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

// "14 Jul", with the hour where ticks are closer than days and the year where it is a new one.
std::string date_label(int64_t time, bool hours, bool months, bool with_year) {
  const int64_t day = time >= 0 ? time / 86400 : -((-time + 86399) / 86400);
  const CivilDate date = civil_from_days(day);
  std::string text = kMonths[static_cast<std::size_t>(date.month - 1)];
  if (!months) text = fmt::format("{} {}", date.day, text);
  if (with_year) text += fmt::format(" {}", date.year);
  if (hours) text = fmt::format("{:02} h {}", (time - day * 86400) / 3600, text);
  return text;
}

void draw_axis(Magics& page, const GraphAxis& axis, const char* orientation) {
  page.set("axis_orientation", orientation);
  page.set("axis_type", "position_list");
  page.set("axis_tick_position_list", axis.ticks);
  page.set("axis_tick_label_type", "label_list");
  page.set("axis_tick_label_list", axis.labels);
  page.set("axis_tick_label_font", "dejavusans");
  page.set("axis_tick_label_height", 0.43);
  page.set("axis_tick_label_colour", "black");
  page.set("axis_tick_colour", "rgb(0.35,0.35,0.35)");
  page.set("axis_line_colour", "rgb(0.35,0.35,0.35)");
  page.set("axis_title", !axis.title.empty());
  page.set("axis_title_text", escaped(axis.title));
  page.set("axis_title_font", "dejavusans");
  page.set("axis_title_height", 0.48);
  page.set("axis_title_colour", "black");
  page.set("axis_grid", axis.grid);
  page.set("axis_grid_colour", "rgb(0.85,0.85,0.85)");
  page.set("axis_grid_line_style", "solid");
  page.set("axis_grid_thickness", 1);
  mag_axis();
}

}  // namespace

std::string tick_label(double value, double step) {
  const int digits = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 12);
  // 2.5 has one digit more than its power of ten
  const double scaled = step * std::pow(10.0, digits);
  const bool half = std::abs(scaled - std::round(scaled)) > 1e-6;
  if (std::abs(value) >= 1e6 || (value != 0 && std::abs(value) < 1e-4))
    return fmt::format("{:g}", value);
  return fmt::format("{:.{}f}", std::abs(value) < step * 1e-9 ? 0.0 : value,
                     digits + (half ? 1 : 0));
}

GraphAxis number_axis(std::string title, double low, double high, int count) {
  GraphAxis axis;
  axis.title = std::move(title);
  axis.ticks = round_levels(low, high, count);
  axis.low = axis.ticks.front();
  axis.high = axis.ticks.back();
  for (const double tick : axis.ticks)
    axis.labels.push_back(tick_label(tick, axis.ticks[1] - axis.ticks[0]));
  return axis;
}

GraphAxis logarithm_axis(std::string title, double low, double high) {
  HALCYON_ASSERT(low > 0 && high >= low && std::isfinite(high));
  GraphAxis axis;
  axis.title = std::move(title);
  // over many decades only the powers of ten themselves
  const double decades = std::log10(high / low);
  const std::vector<double> factors =
      decades > 5 ? std::vector<double>{1} : std::vector<double>{1, 2, 5};
  for (int power = static_cast<int>(std::floor(std::log10(low)));
       power <= static_cast<int>(std::ceil(std::log10(high))); ++power)
    for (const double factor : factors) {
      const double number = factor * std::pow(10.0, power);
      axis.ticks.push_back(std::log10(number));
      axis.labels.push_back(fmt::format("{:g}", number));
    }
  // from the last tick below to the first above
  auto first = std::upper_bound(axis.ticks.begin(), axis.ticks.end(), std::log10(low) + 1e-9);
  first -= first == axis.ticks.begin() ? 0 : 1;
  auto last = std::lower_bound(axis.ticks.begin(), axis.ticks.end(), std::log10(high) - 1e-9);
  if (last == axis.ticks.end()) --last;
  if (last == first) last == axis.ticks.end() - 1 ? --first : ++last;
  const auto begin = first - axis.ticks.begin(), end = last - axis.ticks.begin() + 1;
  axis.labels = {axis.labels.begin() + begin, axis.labels.begin() + end};
  axis.ticks = {axis.ticks.begin() + begin, axis.ticks.begin() + end};
  axis.low = axis.ticks.front();
  axis.high = axis.ticks.back();
  return axis;
}

GraphAxis time_axis(double low, double high) {
  constexpr int kMost = 11;
  GraphAxis axis;
  axis.low = low;
  axis.high = high > low ? high : low + 0.25;
  const double span = axis.high - axis.low;
  std::vector<int64_t> times;
  const auto start = static_cast<int64_t>(std::floor(axis.low * 86400));
  bool hours = false, months = false;
  if (span <= 100) {
    int64_t step = 50 * 86400;
    for (const int64_t hour : {1, 3, 6, 12, 24, 48, 120, 240, 480})
      if (span * 24 <= static_cast<double>(hour) * kMost) {
        step = hour * 3600;
        break;
      }
    hours = step < 86400;
    const int64_t first = (start + step - 1) / step * step;
    for (int64_t time = first; static_cast<double>(time) <= axis.high * 86400 + 0.5; time += step)
      times.push_back(time);
  } else {
    months = true;
    int step = 12 * 100;
    for (const int month : {1, 2, 3, 6, 12, 24, 60, 120, 240})
      if (span <= 30.5 * month * kMost) {
        step = month;
        break;
      }
    const CivilDate date = civil_from_days(static_cast<int64_t>(std::floor(axis.low)));
    for (int64_t month = date.year * 12 + date.month - 1;; ++month) {
      if (month % step != 0) continue;
      const int64_t day = days_from_civil({month / 12, static_cast<int>(month % 12) + 1, 1});
      if (static_cast<double>(day) > axis.high) break;
      if (static_cast<double>(day) >= axis.low) times.push_back(day * 86400);
    }
  }
  int64_t year = -1;
  for (const int64_t time : times) {
    const CivilDate date = civil_from_days(time >= 0 ? time / 86400 : (time - 86399) / 86400);
    axis.ticks.push_back(static_cast<double>(time) / 86400);
    axis.labels.push_back(date_label(time, hours, months, date.year != year));
    year = date.year;
  }
  if (axis.ticks.empty()) {
    axis.ticks = {axis.low};
    axis.labels = {date_label(start, true, false, true)};
  }
  return axis;
}

void draw_graph(const std::filesystem::path& path, const std::string& title,
                const std::string& subtitle, const GraphAxis& x, const GraphAxis& y,
                const std::function<void(Magics&)>& draw) {
  draw_png(path, kWidth, kHeight, [&](Magics& page) {
    page.set("subpage_x_position", kLeft);
    page.set("subpage_y_position", kBottom);
    page.set("subpage_x_length", kWidth - kLeft - kRight);
    page.set("subpage_y_length", kHeight - kBottom - kTop);
    page.set("subpage_frame", true);
    page.set("subpage_frame_colour", "rgb(0.35,0.35,0.35)");
    page.set("subpage_map_projection", "cartesian");
    page.set("subpage_x_axis_type", "regular");
    page.set("subpage_y_axis_type", "regular");
    page.set("subpage_x_min", x.low);
    page.set("subpage_x_max", x.high);
    page.set("subpage_y_min", y.low);
    page.set("subpage_y_max", y.high);
    page.set("legend_box_mode", "positional");
    page.set("legend_box_x_position", kLeft);
    page.set("legend_box_y_position", kHeight - kTop + 0.05);
    page.set("legend_box_x_length", kWidth - kLeft - kRight);
    page.set("legend_box_y_length", 0.75);
    page.set("legend_display_type", "disjoint");
    page.set("legend_entry_plot_direction", "row");
    page.set("legend_column_count", 4);
    page.set("legend_text_font", "dejavusans");
    page.set("legend_text_font_size", 0.45);
    page.set("legend_text_colour", "black");
    draw_axis(page, x, "horizontal");
    draw_axis(page, y, "vertical");
    draw(page);
    page.text(kLeft, kHeight - 1.15, kWidth - kLeft - kRight, 0.9, {title}, 0.65, "left", true);
    page.text(kLeft, kHeight - 1.85, kWidth - kLeft - kRight, 0.7, {subtitle}, 0.48);
  });
}

void draw_line(Magics& page, const std::vector<double>& x, const std::vector<double>& y,
               const LineStyle& style, const std::string& name) {
  HALCYON_ASSERT(x.size() == y.size());
  bool named = name.empty();
  for (std::size_t begin = 0; begin < x.size(); ++begin) {
    if (!std::isfinite(y[begin])) continue;
    std::size_t end = begin;
    while (end < x.size() && std::isfinite(y[end])) ++end;
    page.set("graph_curve_x_values", std::vector<double>(x.begin() + begin, x.begin() + end));
    page.set("graph_curve_y_values", std::vector<double>(y.begin() + begin, y.begin() + end));
    page.set("graph_type", "curve");
    page.set("graph_line", !style.dots);
    page.set("graph_line_colour", style.colour);
    page.set("graph_line_thickness", style.thickness);
    // a single point has no line: a dot shows it
    page.set("graph_symbol", style.dots || end - begin == 1);
    page.set("graph_symbol_marker_index", 15);
    page.set("graph_symbol_height", 0.24);
    page.set("graph_symbol_colour", style.colour);
    page.set("legend", !named);
    page.set("legend_user_text", escaped(name));
    page.set("legend_text_composition", "user_text_only");
    mag_graph();
    named = true;
    begin = end;
  }
}

}  // namespace halcyon::plots
