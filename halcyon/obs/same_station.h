// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "halcyon/obs/table.h"

// Which rows of a table are of one station, and which report the same twice.
namespace halcyon::obs {

// Positions that agree to this, in degrees, are one place: files round and cut coordinates.
inline constexpr double kSamePlace = 0.01;
// Rows of one identifier that are no farther apart are of one station. A ship moves so far within
// an hour; a name that many share, such as SHIP, does not make them one.
inline constexpr double kSameName = 0.5;

// Rows that were added, to be found by station: by the same identifier within reach, or, where one
// of the two rows has none, within kSamePlace. Distances hold in latitude and, in degrees of a
// great circle, along the parallel: longitudes count modulo 360 and shrink towards the poles. Each
// row is found in constant time.
class StationIndex {
 public:
  // reach: degrees. The table must stay.
  StationIndex(const Table& table, double reach);

  // A number in which rows must agree apart from their station.
  using Bucket = std::uint64_t;
  // The first row that was added to the bucket, is of the row's station and fits; -1 for none, and
  // for a row without a position.
  int64_t find(
      int64_t row, Bucket bucket,
      const std::function<bool(int64_t)>& fits = [](int64_t) { return true; }) const;
  void add(int64_t row, Bucket bucket);
  // The row, which is of the same station as a row that was added, gives it its identifier.
  void name(int64_t added, int64_t row, Bucket bucket);

  bool named(int64_t row) const { return station(row) != unnamed_; }

 private:
  struct Entry {
    int64_t row;
    int64_t next;  // in the same cell, -1 at the end
  };
  void put(int64_t row, Bucket bucket, int64_t kind, double reach);
  int64_t look(int64_t row, Bucket bucket, int64_t kind, double reach,
               const std::function<bool(int64_t)>& fits) const;
  int32_t station(int64_t row) const;
  bool positioned(int64_t row) const;
  bool near(int64_t a, int64_t b, double reach) const;

  double reach_;
  std::span<const double> lat_, lon_;
  std::span<const int32_t> station_;
  std::unordered_map<int64_t, int32_t> given_;  // by name()
  int32_t unnamed_ = -1;                        // the code of the empty identifier, if there is one
  std::unordered_map<std::uint64_t, int64_t> cells_;  // last entry of each
  std::vector<Entry> entries_;
};

// Finds rows that say again what an earlier one said: the same station, place to kSamePlace, time
// to the minute (less than 60 s apart), variable and pressure.
class Duplicates {
 public:
  explicit Duplicates(const Table& table);
  // Whether the row repeats one that was seen and was no duplicate.
  bool seen(int64_t row);

 private:
  std::uint64_t bucket(int64_t row, int64_t minute) const;

  StationIndex index_;
  std::span<const int64_t> time_;
  std::span<const float> pressure_;
  std::span<const int32_t> variable_;
};

}  // namespace halcyon::obs
