// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "halcyon/plots/colours.h"
#include "halcyon/sphere/regrid.h"

namespace halcyon::plots {

// A place on a map; its circle has the colour of the value and the value is written beside it. NaN:
// the place alone.
struct MapStation {
  double lon = 0, lat = 0;
  double value = std::numeric_limits<double>::quiet_NaN();
};

struct MapPlot {
  std::string title, subtitle;
  std::string units;                        // of field and stations, shown above the colours
  std::optional<Grid> grid = std::nullopt;  // with field (X); without: stations alone
  at::Tensor field = {};
  std::vector<MapStation> stations = {};
  Palette palette = Palette::temperature;  // temperature takes degrees Celsius
  std::optional<Box> area = std::nullopt;  // default: the grid's, or around the stations
  // Values at the ends of the colours; what lies beyond takes the last colour. Default: those of
  // the field (of a difference: without the most extreme 0.5 %).
  std::optional<std::pair<double, double>> range = std::nullopt;
};

// A PNG map: shaded field, coastlines, borders, stations, colour legend. Areas of middle and high
// latitudes are drawn in polar stereographic projection, others with straight meridians. Missing
// values stay white. Error(argument) when field and grid do not fit or there is nothing to show,
// Error(output) when the file cannot be written.
void plot_map(const std::filesystem::path& path, const MapPlot& plot);

}  // namespace halcyon::plots
