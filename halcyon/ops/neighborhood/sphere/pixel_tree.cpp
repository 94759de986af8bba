// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/sphere/pixel_tree.h"

#include <algorithm>
#include <cmath>

namespace halcyon::neighborhood {

double PixelTree::angle(const Cap& a, const Cap& b) {
  double dot = 0;
  for (std::size_t c = 0; c < 3; ++c) dot += a.centre[c] * b.centre[c];
  return std::acos(std::clamp(dot, -1.0, 1.0));
}

PixelTree::Cap PixelTree::around(const std::vector<Cap>& caps, int64_t begin, int64_t end) {
  Cap whole{{0, 0, 0}, 0};
  for (int64_t i = begin; i < end; ++i) {
    for (std::size_t c = 0; c < 3; ++c)
      whole.centre[c] += caps[static_cast<std::size_t>(i)].centre[c];
  }
  const double length = std::hypot(whole.centre[0], whole.centre[1], whole.centre[2]);
  if (length < 1e-3) return {{0, 0, 1}, M_PI};  // no middle: all of the sphere
  for (auto& c : whole.centre) c /= length;
  for (int64_t i = begin; i < end; ++i) {
    const Cap& cap = caps[static_cast<std::size_t>(i)];
    whole.radius = std::max(whole.radius, angle(whole, cap) + cap.radius);
  }
  return whole;
}

PixelTree::PixelTree(const std::vector<UnitVector>& points, int64_t block) {
  std::vector<Cap> caps;
  caps.reserve(points.size());
  for (const auto& p : points) caps.push_back({{p[0], p[1], p[2]}, 0});
  int64_t width = block;
  do {
    std::vector<Cap> larger;
    const auto n = static_cast<int64_t>(caps.size());
    for (int64_t begin = 0; begin < n; begin += width)
      larger.push_back(around(caps, begin, std::min(begin + width, n)));
    levels_.push_back(larger);
    caps = std::move(larger);
    width = kChildren;
  } while (caps.size() > static_cast<std::size_t>(2 * kChildren));
}

}  // namespace halcyon::neighborhood
