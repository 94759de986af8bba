// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/row_plan.h"

#include <algorithm>
#include <array>
#include <utility>

#include "halcyon/base/error.h"
#include "halcyon/base/integers.h"

namespace halcyon::parallel {
namespace {

constexpr std::array<std::pair<const char*, Edge>, 5> kEdges{{{"zero", Edge::zero},
                                                              {"periodic", Edge::periodic},
                                                              {"reflect", Edge::reflect},
                                                              {"fold", Edge::fold},
                                                              {"none", Edge::none}}};

// Consecutive rows of the axis [first, first + rows) at target.
struct Stretch {
  int64_t first, target, rows;
  bool reversed, folded;
};

std::vector<Stretch> periodic(Interval interval, int64_t n) {
  std::vector<Stretch> stretches;
  for (int64_t row = interval.lo; row < interval.hi;) {
    const int64_t first = row - floor_div(row, n) * n;
    const int64_t rows = std::min(n - first, interval.hi - row);
    stretches.push_back({first, row - interval.lo, rows, false, false});
    row += rows;
  }
  return stretches;
}

// The rows of interval that lie in [lo, hi), if any, as the rows row -> first(row).
void mirror(std::vector<Stretch>& stretches, Interval interval, int64_t lo, int64_t hi, int64_t sum,
            bool folded) {
  const int64_t from = std::max(interval.lo, lo), to = std::min(interval.hi, hi);
  if (from < to) {
    // row -> sum - row: the highest comes from the lowest
    stretches.push_back({sum - (to - 1), from - interval.lo, to - from, true, folded});
  }
}

std::vector<Stretch> stretches_of(Interval interval, int64_t n, Edge edge,
                                  std::string_view operation) {
  if (edge == Edge::periodic) return periodic(interval, n);
  const bool mirrors = edge == Edge::reflect || edge == Edge::fold;
  // how far the mirror reaches, and where its image of row 0 and of row n - 1 lies
  const int64_t gap = edge == Edge::reflect ? 1 : 0;
  HALCYON_CHECK(
      !mirrors || (interval.lo >= gap - n && interval.hi <= 2 * n - gap), operation,
      "expected rows within {} of the axis' ends with the edge rule \"{}\", got rows [{}, "
      "{}) of an axis of {}",
      n - gap, name_of(edge), interval.lo, interval.hi, n);
  std::vector<Stretch> stretches;
  const bool folded = edge == Edge::fold;
  if (mirrors) mirror(stretches, interval, interval.lo, 0, gap - 1, folded);
  const int64_t from = std::max<int64_t>(interval.lo, 0), to = std::min(interval.hi, n);
  if (from < to) {
    const int64_t skipped = edge == Edge::none ? from : interval.lo;
    stretches.push_back({from, from - skipped, to - from, false, false});
  }
  if (mirrors) mirror(stretches, interval, n, interval.hi, 2 * n - 1 - gap, folded);
  return stretches;
}

}  // namespace

Edge edge_of(const std::string& name, std::string_view operation) {
  for (const auto& [known, edge] : kEdges) {
    if (name == known) return edge;
  }
  throw_error(
      ErrorKind::argument, operation,
      fmt::format("expected edge \"zero\", \"periodic\", \"reflect\", \"fold\" or \"none\", "
                  "got \"{}\"",
                  name));
}

const char* name_of(Edge edge) {
  return kEdges[static_cast<size_t>(edge)].first;
}

int64_t rows_of(Interval interval, int64_t global_rows, Edge edge) {
  if (edge == Edge::none) {
    interval = {std::clamp<int64_t>(interval.lo, 0, global_rows),
                std::clamp<int64_t>(interval.hi, 0, global_rows)};
  }
  return std::max<int64_t>(interval.hi - interval.lo, 0);
}

std::vector<Run> runs_of(Interval interval, const std::vector<int64_t>& starts, Edge edge,
                         std::string_view operation) {
  const int64_t n = starts.back();
  if (interval.lo >= interval.hi) return {};
  HALCYON_CHECK(n > 0 || edge == Edge::zero || edge == Edge::none, operation,
                "expected an axis that is not empty with the edge rule \"{}\"", name_of(edge));
  std::vector<Run> runs;
  for (const auto& stretch : stretches_of(interval, n, edge, operation)) {
    const int64_t end = stretch.first + stretch.rows;
    // the rank of the first row: the last that begins at or before it
    auto owner = std::upper_bound(starts.begin(), starts.end() - 1, stretch.first) - starts.begin();
    for (--owner; starts[owner] < end; ++owner) {
      const int64_t from = std::max(stretch.first, starts[owner]);
      const int64_t to = std::min(end, starts[owner + 1]);
      if (from < to) {
        const int64_t skipped = stretch.reversed ? end - to : from - stretch.first;
        runs.push_back({owner, from - starts[owner], stretch.target + skipped, to - from,
                        stretch.reversed, stretch.folded});
      }
      if (owner + 2 == static_cast<int64_t>(starts.size())) break;
    }
  }
  std::sort(runs.begin(), runs.end(),
            [](const Run& a, const Run& b) { return a.target < b.target; });
  return runs;
}

}  // namespace halcyon::parallel
