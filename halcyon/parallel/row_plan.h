// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace halcyon::parallel {

// What stands outside the global axis of H rows.
enum class Edge {
  zero,      // zeros
  periodic,  // row i mod H
  reflect,   // row -i = row i, row H-1+i = row H-1-i; the axis' own rows are not repeated
  fold,      // row -1-i = row i, row H+i = row H-1-i, seen from the other side of the pole
  none,      // nothing: the result is shorter there
};

// "zero", "periodic", "reflect", "fold", "none"; Error(argument) for others.
Edge edge_of(const std::string& name, std::string_view operation);
const char* name_of(Edge edge);

// Rows of the global axis that one rank asks for.
struct Interval {
  int64_t lo, hi;
};

// Consecutive rows of one owner that go to consecutive rows of the result, the last first if
// reversed.
struct Run {
  int64_t owner;   // the rank that has them
  int64_t source;  // its own first of these rows
  int64_t target;  // the result's first
  int64_t rows;
  bool reversed;
  bool folded;  // from the other side of the pole
};

// Rows of the result of an interval: what "none" leaves out is not counted.
int64_t rows_of(Interval interval, int64_t global_rows, Edge edge);

// Where the rows of an interval come from, in the order of the result; rows that are zero have no
// run. starts: where each rank's part of the axis begins, and its end (starts_of). Error(argument)
// where the edge rule does not reach that far.
std::vector<Run> runs_of(Interval interval, const std::vector<int64_t>& starts, Edge edge,
                         std::string_view operation);

}  // namespace halcyon::parallel
