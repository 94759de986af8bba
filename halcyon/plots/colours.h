// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace halcyon::plots {

// temperature: degrees Celsius on an absolute scale, so that two maps can be compared, with blues
// below freezing and greens to reds above; difference: blue, white around zero, red; plain: dark
// blue over green to yellow.
enum class Palette { temperature, difference, plain };

struct ColourScale {
  std::vector<double> levels;        // n + 1
  std::vector<std::string> colours;  // n, "#rrggbb"
};

// Round levels that cover low to high (which may be equal); a difference's are symmetric about
// zero.
ColourScale colour_scale(Palette palette, double low, double high);

// About count steps of 1, 2, 2.5 or 5 times a power of ten that cover low to high, both ends
// included.
std::vector<double> round_levels(double low, double high, int count);

// Distinct in hue and in lightness: lines and bars of a graph.
std::string line_colour(std::size_t number);

}  // namespace halcyon::plots
