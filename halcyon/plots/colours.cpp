// SPDX-License-Identifier: Apache-2.0
#include "halcyon/plots/colours.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "halcyon/base/error.h"

namespace halcyon::plots {
namespace {

struct Anchor {
  double at;
  std::array<double, 3> rgb;
};

// Straight between the anchors, constant beyond them.
std::string interpolate(const std::vector<Anchor>& anchors, double at) {
  std::size_t above = 0;
  while (above < anchors.size() && anchors[above].at < at) ++above;
  const Anchor& high = anchors[std::min(above, anchors.size() - 1)];
  const Anchor& low = anchors[above == 0 ? 0 : above - 1];
  const double span = high.at - low.at;
  const double part = span > 0 ? std::clamp((at - low.at) / span, 0.0, 1.0) : 0;
  std::array<int, 3> rgb{};
  for (std::size_t c = 0; c < 3; ++c)
    rgb[c] = static_cast<int>(std::lround(low.rgb[c] + part * (high.rgb[c] - low.rgb[c])));
  return fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
}

const std::vector<Anchor>& anchors_of(Palette palette) {
  static const std::vector<Anchor> temperature = {
      {-60, {40, 10, 60}},   {-45, {105, 45, 135}}, {-35, {150, 110, 190}}, {-25, {70, 80, 170}},
      {-15, {55, 125, 200}}, {-7, {115, 180, 225}}, {-1, {205, 230, 245}},  {1, {190, 225, 190}},
      {8, {130, 190, 110}},  {15, {245, 235, 140}}, {22, {250, 185, 85}},   {29, {230, 110, 55}},
      {36, {185, 40, 40}},   {45, {110, 15, 35}},   {55, {60, 5, 30}}};
  // of -1 to 1
  static const std::vector<Anchor> difference = {
      {-1, {5, 48, 97}},        {-0.75, {33, 102, 172}}, {-0.5, {67, 147, 195}},
      {-0.25, {146, 197, 222}}, {-0.1, {226, 238, 245}}, {0, {255, 255, 255}},
      {0.1, {252, 232, 222}},   {0.25, {244, 165, 130}}, {0.5, {214, 96, 77}},
      {0.75, {178, 24, 43}},    {1, {103, 0, 31}}};
  // of 0 to 1: evenly rising lightness
  static const std::vector<Anchor> plain = {{0, {68, 1, 84}},      {0.2, {65, 68, 135}},
                                            {0.4, {42, 120, 142}}, {0.6, {34, 168, 132}},
                                            {0.8, {122, 209, 81}}, {1, {253, 231, 37}}};
  return palette == Palette::temperature  ? temperature
         : palette == Palette::difference ? difference
                                          : plain;
}

double round_step(double width) {
  const double power = std::pow(10.0, std::floor(std::log10(width)));
  for (const double factor : {1.0, 2.0, 2.5, 5.0})
    if (factor * power >= width * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

}  // namespace

std::vector<double> round_levels(double low, double high, int count) {
  HALCYON_ASSERT(std::isfinite(low) && std::isfinite(high) && low <= high && count > 0);
  // a constant field gets a range around it, wide enough for the numbers to differ
  const double least = std::max({std::abs(low), std::abs(high), 1e-300}) * 1e-6;
  const double step = round_step(std::max((high - low) / count, least));
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  std::vector<double> levels;
  for (double k = first; k <= std::max(last, first + 1); ++k) levels.push_back(k * step);
  return levels;
}

ColourScale colour_scale(Palette palette, double low, double high) {
  ColourScale scale;
  const auto& anchors = anchors_of(palette);
  if (palette == Palette::difference) {
    const double largest = std::max({std::abs(low), std::abs(high), 1e-6});
    constexpr int kSteps = 6;
    const double step = round_step(largest / kSteps);
    const int steps = std::max(2, static_cast<int>(std::ceil(largest / step - 1e-9)));
    for (int k = -steps; k <= steps; ++k)
      if (k != 0) scale.levels.push_back(k * step);  // one white step about zero
    for (std::size_t k = 0; k + 1 < scale.levels.size(); ++k) {
      const double middle = (scale.levels[k] + scale.levels[k + 1]) / 2;
      scale.colours.push_back(interpolate(anchors, middle / (steps * step)));
    }
    return scale;
  }
  scale.levels = round_levels(low, high, 16);
  const double first = scale.levels.front(), span = scale.levels.back() - first;
  for (std::size_t k = 0; k + 1 < scale.levels.size(); ++k) {
    const double middle = (scale.levels[k] + scale.levels[k + 1]) / 2;
    scale.colours.push_back(
        interpolate(anchors, palette == Palette::temperature ? middle : (middle - first) / span));
  }
  return scale;
}

std::string line_colour(std::size_t number) {
  static constexpr std::array<const char*, 8> colours = {
      "#1f1f1f", "#c8372d", "#2f6fb0", "#e8a33d", "#4c9a52", "#7d4f9e", "#8a5a3c", "#5fb3b3"};
  return colours[number % colours.size()];
}

}  // namespace halcyon::plots
