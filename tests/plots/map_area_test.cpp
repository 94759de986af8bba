// SPDX-License-Identifier: Apache-2.0
#include "halcyon/plots/map_area.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace halcyon::plots {
namespace {

Box box_of(std::vector<double> lon) {
  return bounding_box(at::tensor(lon, at::kDouble),
                      at::zeros({static_cast<int64_t>(lon.size())}, at::kDouble));
}

TEST(MapArea, BoxesLeaveOutTheWidestGap) {
  const Box date_line = box_of({170, -175, 178});
  EXPECT_DOUBLE_EQ(date_line.west, 170);
  EXPECT_DOUBLE_EQ(date_line.east, 185);
  const Box greenwich = box_of({-10, 5, 20});
  EXPECT_DOUBLE_EQ(greenwich.west, 350);
  EXPECT_DOUBLE_EQ(greenwich.east, 380);
  EXPECT_DOUBLE_EQ(box_of({33}).east, 33);
}

TEST(MapArea, MiddleLatitudesArePolarStereographic) {
  const MapArea america = map_area({200, 330, 15, 75});
  EXPECT_TRUE(america.polar);
  EXPECT_FALSE(america.south);
  // the parallel of 15 N touches the lower edge on the middle meridian and lies above it elsewhere
  EXPECT_LT(america.lower_left_lat, 15);
  EXPECT_GT(america.upper_right_lon, 330);
  const MapArea australia = map_area({110, 155, -45, -20});
  EXPECT_TRUE(australia.polar);
  EXPECT_TRUE(australia.south);
  EXPECT_FALSE(map_area({110, 155, -30, 20}).polar);
  EXPECT_FALSE(map_area({-180, 180, 10, 60}).polar);
  const MapArea cap = map_area({0, 360, 50, 90});  // round the pole, all meridians
  EXPECT_TRUE(cap.polar);
  EXPECT_DOUBLE_EQ(cap.aspect, 1);
}

TEST(MapArea, ThinBoxesAreWidenedAndGlobalOnesCentred) {
  const MapArea point = map_area({10, 10, 0, 0});
  EXPECT_DOUBLE_EQ(point.box.east - point.box.west, 4);
  EXPECT_DOUBLE_EQ(point.aspect, 1);
  const MapArea pole = map_area({10, 10, 90, 90});
  EXPECT_LE(pole.box.north, 90);
  const MapArea globe = map_area({0, 359, -90, 90});
  EXPECT_DOUBLE_EQ(globe.box.west, -180);
  EXPECT_DOUBLE_EQ(globe.box.east, 180);
}

}  // namespace
}  // namespace halcyon::plots
