// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace halcyon::neighborhood {

using UnitVector = std::array<float, 3>;

// Blocks of points that follow each other, in ever larger caps: which blocks may have a point
// within a radius of a block, without asking all of them.
class PixelTree {
 public:
  PixelTree(const std::vector<UnitVector>& points, int64_t block);

  // Calls f(block) in ascending order for every block whose cap comes within `radius` (radians) of
  // that of block `from`.
  template <class F>
  void each_near(int64_t from, double radius, const F& f) const {
    visit(levels_.size() - 1, 0, static_cast<int64_t>(levels_.back().size()), levels_[0][from],
          radius, f);
  }

 private:
  struct Cap {
    std::array<double, 3> centre;
    double radius;
  };
  static constexpr int64_t kChildren = 8;
  static double angle(const Cap& a, const Cap& b);
  static Cap around(const std::vector<Cap>& caps, int64_t begin, int64_t end);

  template <class F>
  void visit(std::size_t level, int64_t begin, int64_t end, const Cap& from, double radius,
             const F& f) const {
    for (int64_t i = begin; i < end; ++i) {
      const Cap& cap = levels_[level][static_cast<std::size_t>(i)];
      if (angle(cap, from) > radius + cap.radius + from.radius + 1e-6) continue;
      if (level == 0) {
        f(i);
      } else {
        const auto below = static_cast<int64_t>(levels_[level - 1].size());
        visit(level - 1, i * kChildren, std::min((i + 1) * kChildren, below), from, radius, f);
      }
    }
  }

  std::vector<std::vector<Cap>> levels_;  // blocks first
};

}  // namespace halcyon::neighborhood
