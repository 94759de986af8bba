// SPDX-License-Identifier: Apache-2.0
#include "halcyon/plots/colours.h"

#include <gtest/gtest.h>

namespace halcyon::plots {
namespace {

TEST(Colours, LevelsAreRoundAndCover) {
  EXPECT_EQ(round_levels(0.3, 9.2, 10), (std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  EXPECT_EQ(round_levels(-7, 12, 4), (std::vector<double>{-10, -5, 0, 5, 10, 15}));
  EXPECT_EQ(round_levels(5, 5, 8).size(), 2u);
  EXPECT_LE(round_levels(1e30, 1e30, 8).front(), 1e30);
  EXPECT_EQ(round_levels(0, 0, 8).size(), 2u);
}

TEST(Colours, DifferencesAreSymmetricWithWhiteAroundZero) {
  const ColourScale scale = colour_scale(Palette::difference, -3.1, 11.7);
  EXPECT_EQ(scale.levels, (std::vector<double>{-12, -10, -8, -6, -4, -2, 2, 4, 6, 8, 10, 12}));
  ASSERT_EQ(scale.colours.size() + 1, scale.levels.size());
  EXPECT_EQ(scale.colours[5], "#ffffff");
}

TEST(Colours, TemperaturesKeepTheirColourFromMapToMap) {
  const ColourScale narrow = colour_scale(Palette::temperature, 0, 32),
                    wide = colour_scale(Palette::temperature, -16, 16);
  const auto colour_of = [](const ColourScale& scale, double value) {
    std::size_t bin = 0;
    while (scale.levels[bin + 1] <= value) ++bin;
    return scale.colours[bin];
  };
  EXPECT_EQ(narrow.levels[1] - narrow.levels[0], 2);
  EXPECT_EQ(colour_of(narrow, 5), colour_of(wide, 5));
  EXPECT_EQ(colour_of(wide, -1), "#cde6f5");  // just below freezing: the palest blue
}

}  // namespace
}  // namespace halcyon::plots
