// SPDX-License-Identifier: Apache-2.0
#include "halcyon/plots/map.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>
#include <magics_api.h>

#include <algorithm>
#include <cmath>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/plots/magics.h"
#include "halcyon/plots/map_area.h"
#include "halcyon/state/area.h"

namespace halcyon::plots {
namespace {

constexpr double kMissing = 1e21;
constexpr double kLeft = 1.3, kBottom = 1.0, kRight = 3.4, kTop = 2.3;  // cm around the map
constexpr double kWidest = 24, kHighest = 19, kNarrowest = 9, kLowest = 7;
constexpr std::size_t kMostLabels = 80;  // more values than these could not be read

// The field on an even grid of the area, fine enough for smooth edges, rows from north to south;
// this one form is what every kind of grid is drawn from.
struct Raster {
  double west, north, step_lon, step_lat;
  int columns, rows;
  std::vector<double> values;
};

Raster rasterise(const MapPlot& plot, const MapArea& area) {
  const Box& box = area.box;
  Raster raster{.west = box.west,
                .north = box.north,
                .step_lon = 0,
                .step_lat = 0,
                .columns = 361,
                .rows = 0,
                .values = {}};
  raster.step_lon = (box.east - box.west) / (raster.columns - 1);
  raster.rows = static_cast<int>(
      std::clamp(std::round((box.north - box.south) / raster.step_lon), 30.0, 361.0));
  raster.step_lat = (box.north - box.south) / (raster.rows - 1);
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor lon = at::linspace(box.west, box.east, raster.columns, options),
                   lat = at::linspace(box.north, box.south, raster.rows, options);
  const at::Tensor lons = lon.repeat({raster.rows}), lats = lat.repeat_interleave(raster.columns);
  const SparseMatrix regridder = std::visit(
      [&](const auto& grid) { return bilinear_to_points(grid, lons, lats); }, *plot.grid);
  const at::Tensor values = regridder.apply(plot.field.to(at::kDouble)).contiguous();
  raster.values.assign(values.const_data_ptr<double>(),
                       values.const_data_ptr<double>() + values.numel());
  return raster;
}

std::vector<double> present_values(const MapPlot& plot) {
  std::vector<double> values;
  if (plot.grid) {
    const at::Tensor field = plot.field.to(at::kDouble).contiguous();
    const double* first = field.const_data_ptr<double>();
    std::copy_if(first, first + field.numel(), std::back_inserter(values),
                 [](double value) { return std::isfinite(value); });
  }
  for (const auto& station : plot.stations)
    if (std::isfinite(station.value)) values.push_back(station.value);
  return values;
}

std::pair<double, double> range_of(const MapPlot& plot) {
  if (plot.range) return *plot.range;
  std::vector<double> values = present_values(plot);
  if (values.empty()) return {0, 1};
  std::sort(values.begin(), values.end());
  const double cut = plot.palette == Palette::difference ? 0.005 : 0;
  const auto skip = static_cast<std::size_t>(cut * static_cast<double>(values.size()));
  return {values[skip], values[values.size() - 1 - skip]};
}

// Where the map lies on its page: as large as fits, and never so narrow or low that titles and
// legend lose their place.
struct Sheet {
  double map_width, map_height, width, height;

  explicit Sheet(double aspect) {
    map_width = std::min(kWidest, kHighest / aspect);
    map_height = map_width * aspect;
    width = kLeft + std::max(map_width, kNarrowest) + kRight;
    height = kBottom + std::max(map_height, kLowest) + kTop;
  }
  double bottom() const { return height - kTop - map_height; }
};

void set_projection(Magics& page, const MapArea& area, const Sheet& sheet) {
  page.set("subpage_frame", true);
  page.set("subpage_frame_colour", "rgb(0.35,0.35,0.35)");
  page.set("subpage_x_position", kLeft);
  page.set("subpage_y_position", sheet.bottom());
  page.set("subpage_x_length", sheet.map_width);
  page.set("subpage_y_length", sheet.map_height);
  page.set("subpage_map_projection", area.polar ? "polar_stereographic" : "cylindrical");
  if (area.polar) {
    page.set("subpage_map_hemisphere", area.south ? "south" : "north");
    // down from the North Pole, and up from the South Pole
    page.set("subpage_map_vertical_longitude", area.middle_lon() + (area.south ? 180 : 0));
  }
  page.set("subpage_lower_left_longitude", area.lower_left_lon);
  page.set("subpage_lower_left_latitude", area.lower_left_lat);
  page.set("subpage_upper_right_longitude", area.upper_right_lon);
  page.set("subpage_upper_right_latitude", area.upper_right_lat);
}

void set_legend(Magics& page, const Sheet& sheet, const std::string& units) {
  const double x = kLeft + sheet.map_width + 0.5;
  const double height = std::max(sheet.map_height, kLowest), bottom = sheet.height - kTop - height;
  page.set("legend", true);
  page.set("legend_box_mode", "positional");
  page.set("legend_box_x_position", x);
  page.set("legend_box_y_position", bottom);
  page.set("legend_box_x_length", 2.4);
  page.set("legend_box_y_length", height - 0.5);
  page.set("legend_display_type", "continuous");
  page.set("legend_entry_plot_direction", "column");
  page.set("legend_text_font", "dejavusans");
  page.set("legend_text_font_size", 0.45);
  page.set("legend_text_colour", "black");
  if (!units.empty()) page.text(x + 0.15, bottom + height - 0.75, 2.6, 0.8, {units}, 0.5);
}

void draw_field(Magics& page, Raster raster, const ColourScale& scale) {
  // inside the outermost levels, so that nothing that is present stays white
  const double margin = 1e-6 * (scale.levels.back() - scale.levels.front());
  for (double& value : raster.values)
    value = std::isfinite(value)
                ? std::clamp(value, scale.levels.front() + margin, scale.levels.back() - margin)
                : kMissing;
  page.set("input_field_initial_longitude", raster.west);
  page.set("input_field_longitude_step", raster.step_lon);
  page.set("input_field_initial_latitude", raster.north);
  page.set("input_field_latitude_step", -raster.step_lat);
  page.set("input_field_suppress_above", kMissing / 10);
  page.set_matrix("input_field", raster.values, raster.columns);
  page.set("contour", false);
  page.set("contour_label", false);
  page.set("contour_hilo", false);
  page.set("contour_shade", true);
  page.set("contour_shade_method", "area_fill");
  page.set("contour_internal_reduction_factor", 1.0);  // edges as fine as the raster
  page.set("contour_level_selection_type", "level_list");
  page.set("contour_level_list", scale.levels);
  page.set("contour_shade_colour_method", "list");
  page.set("contour_shade_colour_list", scale.colours);
  mag_cont();
}

void draw_coast(Magics& page, const MapArea& area) {
  const double span = area.box.east - area.box.west;
  // finer ones fill wide maps with lakes
  page.set("map_coastline_resolution", span > 60 ? "low" : span > 12 ? "medium" : "high");
  page.set("map_coastline_colour", "rgb(0.15,0.15,0.15)");
  page.set("map_coastline_thickness", 2);
  page.set("map_boundaries", true);
  page.set("map_boundaries_colour", "rgb(0.3,0.3,0.3)");
  page.set("map_grid_colour", "rgb(0.45,0.45,0.45)");
  page.set("map_grid_line_style", "dot");
  page.set("map_grid_longitude_increment", grid_increment(span));
  page.set("map_grid_latitude_increment", grid_increment(area.box.north - area.box.south));
  page.set("map_label_font", "dejavusans");
  page.set("map_label_height", 0.4);
  page.set("map_label_colour", "rgb(0.25,0.25,0.25)");
  // labels of a polar map would lie on the field
  page.set("map_label", !area.polar);
  mag_coast();
}

// Magics wants longitudes on the map's own turn of the circle.
double unwrapped(double lon, const Box& box) {
  return box.west + std::fmod(std::fmod(lon - box.west, 360) + 360, 360);
}

void set_places(Magics& page, const std::vector<MapStation>& stations, const Box& box) {
  std::vector<double> lon, lat;
  for (const auto& station : stations) {
    lon.push_back(unwrapped(station.lon, box));
    lat.push_back(station.lat);
  }
  page.set("symbol_position_mode", "geographic");
  page.set("symbol_input_x_position", lon);
  page.set("symbol_input_y_position", lat);
}

void draw_circles(Magics& page, const std::vector<MapStation>& stations, const MapArea& area,
                  const std::string& colour, double size) {
  set_places(page, stations, area.box);
  page.set("symbol_input_number_list", std::vector<double>(stations.size(), 1.0));
  page.set("symbol_type", "marker");
  page.set("symbol_marker_mode", "index");
  page.set("symbol_marker_index", 15);
  page.set("symbol_height", size);
  page.set("symbol_colour", colour);
  mag_symb();
}

void draw_stations(Magics& page, const MapPlot& plot, const MapArea& area,
                   const ColourScale& scale) {
  page.set("legend", false);
  const bool many = plot.stations.size() > kMostLabels;
  const double size = many ? 0.22 : 0.36;
  draw_circles(page, plot.stations, area, "black", size);  // the rim
  std::vector<std::vector<MapStation>> by_colour(scale.colours.size());
  std::vector<MapStation> valued;
  std::vector<std::string> labels;
  for (const auto& station : plot.stations) {
    if (!std::isfinite(station.value)) continue;
    const auto above = std::upper_bound(scale.levels.begin(), scale.levels.end(), station.value);
    const auto bin = std::clamp<std::ptrdiff_t>(above - scale.levels.begin() - 1, 0,
                                                std::ssize(scale.colours) - 1);
    by_colour[static_cast<std::size_t>(bin)].push_back(station);
    valued.push_back(station);
    labels.push_back(fmt::format("  {:.1f}", station.value));  // clear of the circle
  }
  for (std::size_t c = 0; c < by_colour.size(); ++c)
    if (!by_colour[c].empty())
      draw_circles(page, by_colour[c], area, scale.colours[c], 0.72 * size);
  if (many || valued.empty()) return;
  set_places(page, valued, area.box);
  page.set("symbol_input_number_list", std::vector<double>(valued.size(), 1.0));
  page.set("symbol_type", "text");
  page.set("symbol_text_list", labels);
  page.set("symbol_text_position", "right");
  page.set("symbol_text_font", "dejavusans");
  page.set("symbol_text_font_size", 0.42);
  page.set("symbol_text_font_style", "bold");
  page.set("symbol_text_font_colour", "black");
  page.set("symbol_height", size);
  mag_symb();
}

void check_plot(const MapPlot& plot) {
  constexpr const char* operation = "plot_map";
  HALCYON_CHECK(plot.grid || !plot.stations.empty(), operation, "expected a field or stations");
  if (plot.grid)
    HALCYON_CHECK(plot.field.defined() && plot.field.dim() == 1 && plot.field.is_floating_point() &&
                      plot.field.size(0) == size_of(*plot.grid),
                  operation, "expected a floating-point field of {} points, got {}",
                  size_of(*plot.grid), describe(plot.field));
  for (const auto& station : plot.stations)
    HALCYON_CHECK(
        std::isfinite(station.lon) && std::abs(station.lon) <= 720 && std::abs(station.lat) <= 90,
        operation, "expected stations on the sphere, got {} N {} E", station.lat, station.lon);
  if (plot.range)
    HALCYON_CHECK(std::isfinite(plot.range->first) && std::isfinite(plot.range->second) &&
                      plot.range->first <= plot.range->second,
                  operation, "expected a range that rises, got {} to {}", plot.range->first,
                  plot.range->second);
  if (plot.area) {
    const Box& box = *plot.area;
    HALCYON_CHECK(std::isfinite(box.west) && std::isfinite(box.east) && box.south < box.north &&
                      box.south >= -90 && box.north <= 90 && std::abs(box.west) <= 720 &&
                      std::abs(box.east) <= 720,
                  operation, "expected an area on the sphere");
  }
}

Box area_of(const MapPlot& plot) {
  if (plot.area) return *plot.area;
  if (plot.grid) {
    const auto [lon, lat] = state::points(*plot.grid);
    return bounding_box(lon, lat);
  }
  std::vector<double> lon, lat;
  for (const auto& station : plot.stations) {
    lon.push_back(station.lon);
    lat.push_back(station.lat);
  }
  Box box = bounding_box(at::tensor(lon, at::kDouble), at::tensor(lat, at::kDouble));
  return {box.west - 3, box.east + 3, std::max(-90.0, box.south - 3),
          std::min(90.0, box.north + 3)};
}

}  // namespace

void plot_map(const std::filesystem::path& path, const MapPlot& plot) {
  check_plot(plot);
  const MapArea area = map_area(area_of(plot));
  const auto [low, high] = range_of(plot);
  const ColourScale scale = colour_scale(plot.palette, low, high);
  std::optional<Raster> raster;
  if (plot.grid) raster = rasterise(plot, area);
  const bool shaded = raster && std::any_of(raster->values.begin(), raster->values.end(),
                                            [](double value) { return std::isfinite(value); });
  const Sheet sheet(area.aspect);
  draw_png(path, sheet.width, sheet.height, [&](Magics& page) {
    set_projection(page, area, sheet);
    set_legend(page, sheet, shaded ? plot.units : "");
    if (shaded) draw_field(page, *raster, scale);
    draw_coast(page, area);
    if (!plot.stations.empty()) draw_stations(page, plot, area, scale);
    const double width = sheet.width - kLeft - 0.5;
    page.text(kLeft, sheet.height - 1.2, width, 0.9, {plot.title}, 0.65, "left", true);
    page.text(kLeft, sheet.height - 2.0, width, 0.8, {plot.subtitle}, 0.48);
  });
}

}  // namespace halcyon::plots
