// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace halcyon::neighborhood {

inline constexpr int kMaxVectors = 4;  // blocks of a tile

struct Tile;

// Scores that stand in memory as rows of slots, one row a query.
template <class S, class T>
struct SlotMover {
  // to[s * pitch + i] = from[offset[i] + s] for i < count <= lanes; the lanes from there on become
  // 0
  void (*read)(int64_t count, int64_t slots, const S* from, const int64_t* offset, T* to,
               int64_t pitch);
  // to[offset[i] + s] = from[s * lanes + i] for i < count <= lanes
  void (*write)(int64_t count, int64_t slots, const T* from, S* to, const int64_t* offset);
};

// The scores of an item's queries, transposed as sources are: (row, slot, place). The slot of a key
// is the step from the first key of the query's window to it, so that the score of lane l's key
// with the query at place p of a row stands at
//   data[row[row] + vector[vector] + (l - first[p]) * pitch + p].
template <class T>
struct SlotBox {
  const T* data;
  int64_t pitch;
  const int64_t* row;           // by row of the box: its start, less its windows' first rows
  int64_t vector[kMaxVectors];  // by vector of the tile: lane 0's key
  const int32_t* first;         // by place: the first key of its query's window on the last axis
  const int32_t* steady;        // by place: from here so many windows begin one key later each
  int64_t valid;                // lanes of the tile
};

template <class T>
struct SlotKernel {
  // s = value at the shifts that a lane does not have
  void (*fill)(const Tile&, T value, T* s);
  // Targets are keys: s becomes their scores, 0 at the shifts that a lane does not have.
  void (*of_keys)(const Tile&, const SlotBox<T>& box, T* s);
};

}  // namespace halcyon::neighborhood
